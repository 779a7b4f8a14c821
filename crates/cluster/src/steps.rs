//! The steps, in groups: each group finds the mesh as the one before has left it; the steps of a group run side by side, and do
//! not disturb each other.

mod admission;
mod bookinfo;
mod capture;
mod certificates;
mod changes;
mod classic;
mod commands;
mod egress;
mod identity;
mod injection;
mod install;
mod istioctl;
mod kinds;
mod objects;
mod outages;
mod plug_in_ca;
mod probes;
mod refused;
mod restarts;
mod revisions;
mod routing;
mod services;
mod startup;
mod tls_origination;

use crate::run::{Step, When};

/// All steps.
pub fn all() -> Vec<Vec<Step>> {
    let needed = |name, run| Step { name, when: When::Needed, run };
    let step = |name, run| Step { name, when: When::Usual, run };
    let always = |name, run| Step { name, when: When::Always, run };
    vec![
        vec![needed("charts_install", install::install)],
        vec![
            needed("bookinfo_joins_the_mesh", bookinfo::deploy),
            needed("services_work_beside_virtual_services", services::beside),
        ],
        vec![needed("the_gateway_shows_the_page_and_nothing_else", bookinfo::through_the_gateway)],
        vec![
            step("a_second_root_is_trusted", plug_in_ca::second_root),
            step("a_sidecar_is_ready_before_the_application", injection::order),
            step("pods_that_ask_for_it_are_left_alone", injection::left_alone),
            step("jobs_complete", injection::jobs),
            step("the_classic_form_of_the_sidecar", classic::classic),
            step("probes_work_and_tell_of_illness", probes::probes),
            step("stateful_sets_are_reached_by_the_names_of_their_pods", kinds::headless),
            step("external_names_and_node_ports", kinds::external_name_and_node_port),
            step("tproxy_keeps_the_callers_address", capture::tproxy),
            step("dns_capture_answers_for_the_mesh", capture::dns),
            step("an_invalid_resource_that_came_in_rejects_itself_alone", objects::came_in),
            step("strangers_get_neither_certificate_nor_configuration", identity::strangers_get_nothing),
        ],
        vec![
            step("one_virtual_service_delays_meshed_callers_only", services::delay),
            step("commands_answer_about_the_cluster", commands::answer),
            step("the_genuine_istioctl_answers_about_the_cluster", istioctl::istioctl),
            step("an_invalid_resource_is_refused_with_its_field", refused::webhook),
            step("a_gateway_that_selects_nothing_says_so", refused::no_such_gateway),
            step("too_large_and_too_deep_admissions_are_refused", admission::too_much),
            step("the_api_server_accepts_the_optional_objects", objects::optional),
            step("kubectl_explains_the_kinds", objects::explain),
            step("a_gateway_has_its_certificate_from_a_secret", certificates::of_a_secret),
            step("tls_begins_at_the_egress_gateway", tls_origination::begins_at_the_gateway),
        ],
        vec![step("samples_route_as_they_say", routing::samples)],
        vec![step("registry_only_blocks_and_a_service_entry_opens", egress::registry_only)],
        vec![step("the_egress_gateway_carries_what_leaves", egress::gateway)],
        vec![step("status_says_where_a_resource_is_in_force", refused::status)],
        vec![step("changes_reach_the_traffic_soon", changes::latency)],
        vec![step("a_pod_starts_soon_with_its_sidecar", startup::overhead)],
        vec![step("memory_is_small", changes::memory)],
        vec![step("restarts_lose_no_request", restarts::rolling)],
        vec![step("control_planes_die_and_no_request_is_lost", outages::control_planes)],
        vec![step("the_api_server_dies_and_no_request_is_lost", outages::api_server)],
        vec![step("a_new_certificate_authority_loses_no_request", plug_in_ca::new_signer)],
        vec![step("a_canary_upgrade_loses_no_request", revisions::canary)],
        vec![always("uninstalling_leaves_only_the_types", install::uninstall)],
    ]
}

#[cfg(test)]
mod tests {
    /// The table of `docs/kubernetes-tests.md` has one row for each step, in their order.
    #[test]
    fn the_documentation_lists_the_steps() {
        let file = mizzen_testing::repository().join("docs/kubernetes-tests.md");
        let text = std::fs::read_to_string(&file).expect("the documentation of the steps");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let listed: Vec<&str> = rows.map(|(name, _)| name).collect();
        let groups = super::all();
        let steps: Vec<&str> = groups.iter().flatten().map(|step| step.name).collect();
        assert_eq!(listed, steps);
    }
}
