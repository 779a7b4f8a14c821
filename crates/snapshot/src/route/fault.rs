//! Whether a fault is injected.

use std::time::Duration;

use super::{Abort, Fault};

/// Random numbers from `0..1_000_000`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultDraws {
    pub delay: u32,
    pub abort: u32,
}

/// First wait, then answer; each may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultDecision {
    pub delay: Option<Duration>,
    pub abort: Option<Abort>,
}

impl Fault {
    pub fn decide(&self, draws: FaultDraws) -> FaultDecision {
        let delay = self.delay.filter(|(_, share)| share.hit(draws.delay)).map(|(delay, _)| delay);
        let abort = self.abort.filter(|(_, share)| share.hit(draws.abort)).map(|(abort, _)| abort);
        FaultDecision { delay, abort }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use mizzen_types::Percent;

    use super::*;

    #[test]
    fn delay_and_abort_are_drawn_apart() {
        let abort = Abort::Http(StatusCode::IM_A_TEAPOT);
        let half = Percent::from_percent(50.0).unwrap();
        let fault = Fault { delay: Some((Duration::from_secs(7), half)), abort: Some((abort, half)) };
        let decide = |delay, abort| fault.decide(FaultDraws { delay, abort });
        assert_eq!(decide(0, 0), FaultDecision { delay: Some(Duration::from_secs(7)), abort: Some(abort) });
        assert_eq!(decide(500_000, 499_999), FaultDecision { delay: None, abort: Some(abort) });
        assert_eq!(decide(499_999, 500_000), FaultDecision { delay: Some(Duration::from_secs(7)), abort: None });
        let never = Fault { delay: None, abort: Some((abort, Percent::NEVER)) };
        assert_eq!(never.decide(FaultDraws::default()), FaultDecision::default());
    }
}
