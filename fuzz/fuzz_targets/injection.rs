//! A pod at the webhook: injecting it twice is injecting it once, and a refusal has a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_inject::{Decision, Request, Settings, Sources, inject};
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(pod) = serde_json::from_str::<Value>(text) else { return };
    let (settings, _) = Settings::read(Sources { native: true, ..Sources::default() }).expect("the defaults");
    match inject(&settings, &Request::new(&pod, "shop")) {
        Ok(Decision::Injected(once)) => match inject(&settings, &Request::new(&once.pod, "shop")) {
            Ok(Decision::Injected(twice)) => assert_eq!(once.pod, twice.pod),
            other => panic!("an injected pod is {other:?}"),
        },
        Ok(Decision::Skipped { .. }) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
