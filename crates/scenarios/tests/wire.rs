//! Every scenario of `scenarios/`, with our control plane and our proxies over real sockets.

use mizzen_scenarios::Runner;
use mizzen_scenarios::live::Kind;

fn main() {
    mizzen_scenarios::suite::live("our proxies", Runner::Wire, Ok(Kind::Mizzen));
}
