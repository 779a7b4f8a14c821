//! The steps, in the order in which they run: each finds the mesh as the one before has left it.

mod bookinfo;
mod changes;
mod commands;
mod egress;
mod injection;
mod install;
mod refused;
mod restarts;
mod routing;
mod services;

use crate::run::Step;

/// All steps.
pub fn all() -> Vec<Step> {
    let needed = |name, run| Step { name, needed: true, run };
    let step = |name, run| Step { name, needed: false, run };
    vec![
        needed("charts_install", install::install),
        needed("bookinfo_joins_the_mesh", bookinfo::deploy),
        needed("the_gateway_shows_the_page_and_nothing_else", bookinfo::through_the_gateway),
        step("a_sidecar_is_ready_before_the_application", injection::order),
        step("pods_that_ask_for_it_are_left_alone", injection::left_alone),
        step("jobs_complete", injection::jobs),
        step("services_work_beside_virtual_services", services::beside),
        step("one_virtual_service_delays_meshed_callers_only", services::delay),
        step("samples_route_as_they_say", routing::samples),
        step("registry_only_blocks_and_a_service_entry_opens", egress::registry_only),
        step("the_egress_gateway_carries_what_leaves", egress::gateway),
        step("commands_answer_about_the_cluster", commands::answer),
        step("an_invalid_resource_is_refused_with_its_field", refused::webhook),
        step("status_says_where_a_resource_is_in_force", refused::status),
        step("a_gateway_that_selects_nothing_says_so", refused::no_such_gateway),
        step("changes_reach_the_traffic_soon", changes::latency),
        step("memory_is_small", changes::memory),
        step("restarts_lose_no_request", restarts::rolling),
        step("control_planes_die_and_no_request_is_lost", restarts::control_plane),
        step("uninstalling_leaves_only_the_types", install::uninstall),
    ]
}
