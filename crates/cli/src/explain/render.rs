//! An explanation as text: one step a paragraph, the deciding line of a file at the right.

use std::fmt::Write;

use mizzen_snapshot::plan::explain::{Choice, ClusterStep, ForwardStep, Verdict};

use super::Answer;

/// Endpoints of one cluster that are shown.
const SHOWN_ENDPOINTS: usize = 8;
const LABEL: usize = 14;

pub(super) fn text(answer: &Answer) -> String {
    let mut page = Page::default();
    let explanation = &answer.explanation;
    let question = &answer.question;
    page.line(&format!("{} {}   through {}", question.method, question.url, answer.proxy));
    for (name, value) in &question.headers {
        page.line(&format!("  {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    page.gap();
    page.step("listener", &format!("{} at {}", explanation.listener.name, explanation.listener.address));
    page.because(explanation.listener.because.as_ref().map(|because| answer.place(because, &because.field)));
    if let Some(chain) = &explanation.chain {
        let name = if chain.name.is_empty() { String::new() } else { format!(", filter chain {}", chain.name) };
        page.step("connection", &format!("{}{name}", chain.security));
    }
    if let Some(table) = &explanation.table {
        page.step("route table", table);
    }
    if let Some(host) = &explanation.host {
        page.step("virtual host", &format!("{} for {}", host.name, shortened(&host.domains)));
        page.because(host.because.as_ref().map(|because| answer.place(because, &because.field)));
    }
    for (index, route) in explanation.routes.iter().enumerate() {
        let label = if index == 0 { "routes" } else { "" };
        let name = if route.name.is_empty() { String::new() } else { format!(" ({})", route.name) };
        let (mark, why) = match &route.reason {
            None => ("✓", String::new()),
            Some(reason) => ("✗", format!(": {reason}")),
        };
        page.step(label, &format!("{mark} {}{name}{why}", route.path));
        let field = |because: &mizzen_snapshot::plan::explain::Because| {
            answer.place(because, route.match_field.as_deref().unwrap_or(&because.field))
        };
        page.because(route.because.as_ref().map(field));
    }
    verdict(&mut page, answer);
    if !answer.refused.is_empty() {
        page.gap();
        page.line("Not in force, since our proxy cannot obey it:");
        answer.refused.iter().for_each(|refused| page.line(&format!("  {refused}")));
    }
    page.text
}

fn verdict(page: &mut Page, answer: &Answer) {
    match &answer.explanation.verdict {
        Verdict::Forward(step) => forward(page, answer, step),
        Verdict::Tcp { choices } => {
            choices.iter().for_each(|choice| cluster_choice(page, answer, choice, choices.len()))
        }
        Verdict::Redirect { status, location, faults } => {
            faults.iter().for_each(|fault| page.step("fault", fault));
            page.step("answer", &format!("{status}, redirected to {location}"));
        }
        Verdict::Respond { status, body_bytes, faults } => {
            faults.iter().for_each(|fault| page.step("fault", fault));
            page.step("answer", &format!("{status} with a body of {body_bytes} bytes, by the route itself"));
        }
        Verdict::Refuse { status, flag, reason } => {
            let status =
                status.map_or_else(|| "the connection is closed".to_owned(), |status| format!("status {status}"));
            let flag = flag.as_ref().map_or_else(String::new, |flag| format!(" ({flag} in the access log)"));
            page.step("refused", &format!("{status}{flag}: {reason}"));
        }
    }
}

fn forward(page: &mut Page, answer: &Answer, step: &ForwardStep) {
    step.faults.iter().for_each(|fault| page.step("fault", fault));
    if let Some(path) = &step.rewritten_path {
        page.step("rewrite", &format!("path {path}"));
    }
    if let Some(host) = &step.rewritten_host {
        page.step("rewrite", &format!("host {host}"));
    }
    page.step("timeout", step.timeout.as_deref().unwrap_or("none"));
    page.step(
        "retries",
        &step.retries.as_ref().map_or_else(
            || "none".to_owned(),
            |retries| {
                let each =
                    retries.per_try_timeout.as_ref().map_or_else(String::new, |each| format!(", each try {each}"));
                format!("up to {} on {}{each}", retries.attempts, retries.on.join(", "))
            },
        ),
    );
    if !step.hashed_by.is_empty() {
        page.step("hashed by", &step.hashed_by.join(", "));
    }
    if step.cors {
        page.step("CORS", "the route has a policy");
    }
    step.choices.iter().for_each(|choice| cluster_choice(page, answer, choice, step.choices.len()));
    for mirror in &step.mirrors {
        page.step("mirror", &format!("{} of requests to {}", mirror.share, mirror.cluster.name));
        page.because(mirror.cluster.because.as_ref().map(|because| answer.place(because, &because.field)));
    }
}

fn cluster_choice(page: &mut Page, answer: &Answer, choice: &Choice, of: usize) {
    let cluster = &choice.cluster;
    let share = if of > 1 { format!("{}%  ", trimmed(choice.percent)) } else { String::new() };
    let missing = if cluster.exists { "" } else { "   does not exist: status 503 (NC)" };
    page.step("cluster", &format!("{share}{}{missing}", cluster.name));
    page.because(cluster.because.as_ref().map(|because| answer.place(because, &because.field)));
    if let Some(subset) = &cluster.subset {
        page.step("", &format!("subset {subset}"));
    }
    if let Some(balance) = &cluster.balance {
        page.step("", &format!("balanced by {balance}"));
    }
    if cluster.exists {
        endpoints(page, cluster);
    }
}

fn endpoints(page: &mut Page, cluster: &ClusterStep) {
    if cluster.endpoints.is_empty() {
        page.step("", "no endpoint: status 503 (UH), unless the cluster passes connections through");
    }
    for endpoint in cluster.endpoints.iter().take(SHOWN_ENDPOINTS) {
        let workload = endpoint.workload.as_ref().map_or_else(String::new, |workload| format!("  {workload}"));
        let health = if endpoint.healthy { "healthy" } else { "not healthy" };
        let identity = endpoint.identities.first().map_or_else(String::new, |identity| format!("  {identity}"));
        page.step("", &format!("→ {}{workload}  {health}  {}{identity}", endpoint.address, endpoint.security));
    }
    if cluster.endpoints.len() > SHOWN_ENDPOINTS {
        page.step("", &format!("  and {} more", cluster.endpoints.len() - SHOWN_ENDPOINTS));
    }
}

fn shortened(domains: &[String]) -> String {
    match domains {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}

/// 33.333333 as 33.3, 80.0 as 80.
fn trimmed(percent: f64) -> String {
    let text = format!("{percent:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}", text.trim_end());
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn step(&mut self, label: &str, text: &str) {
        let _ = writeln!(self.text, "  {label:LABEL$}{text}");
    }

    /// Where the step before is written.
    fn because(&mut self, place: Option<String>) {
        if let Some(place) = place {
            self.step("", &format!("  {place}"));
        }
    }
}
