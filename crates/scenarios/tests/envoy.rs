//! Every scenario of `scenarios/`, with our control plane and stock Envoys.

use mizzen_scenarios::Runner;
use mizzen_scenarios::live::Kind;

fn main() {
    let why = "no Envoy is installed (`cargo xtask test` installs one into .cache/envoy; MIZZEN_ENVOY names another)";
    let envoy = mizzen_testing::envoy().map(Kind::Envoy).ok_or(why);
    mizzen_scenarios::suite::live("Envoy", Runner::Envoy, envoy);
}
