//! The order of the containers after the merge.

use serde_json::Value;

use crate::Job;
use crate::annotation::items;
use crate::names::*;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS};

/// With a native sidecar: redirection, what the user wants before the proxy, the proxy, all others. Without one, the
/// redirection comes last, so that init containers reach the network; the proxy comes last too (so that `kubectl exec`
/// means the application), or first where the application has to wait for it.
pub(crate) fn order(pod: &mut Value, job: &Job<'_>) {
    if pod::position(pod, INIT_CONTAINERS, PROXY).is_some() {
        to_front(pod, INIT_CONTAINERS, PROXY);
        let before: Vec<&str> = job.annotations.get(BEFORE_PROXY).map(items).into_iter().flatten().collect();
        for name in before.into_iter().rev() {
            to_front(pod, INIT_CONTAINERS, name);
        }
        to_front(pod, INIT_CONTAINERS, VALIDATION);
        to_front(pod, INIT_CONTAINERS, INIT);
        return;
    }
    to_front(pod, INIT_CONTAINERS, VALIDATION);
    to_back(pod, INIT_CONTAINERS, INIT);
    let values = &job.settings.values.global.proxy;
    if job.proxy_config.holds_application() || values.hold_application_until_proxy_starts {
        to_front(pod, CONTAINERS, PROXY);
    } else {
        to_back(pod, CONTAINERS, PROXY);
    }
}

fn to_front(pod: &mut Value, list: &str, name: &str) {
    move_to(pod, list, name, |_| 0);
}

fn to_back(pod: &mut Value, list: &str, name: &str) {
    move_to(pod, list, name, |len| len);
}

fn move_to(pod: &mut Value, list: &str, name: &str, place: impl Fn(usize) -> usize) {
    let Some(index) = pod::position(pod, list, name) else { return };
    let Some(items) = pod::list_mut(pod, list) else { return };
    let item = items.remove(index);
    items.insert(place(items.len()), item);
}
