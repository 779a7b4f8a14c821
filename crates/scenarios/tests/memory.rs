//! Every scenario of `scenarios/`, as the pure decision sees it.

fn main() {
    mizzen_scenarios::suite::in_memory();
}
