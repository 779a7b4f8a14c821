//! Medians, ratios, a table, and a plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// One peer, one round.
#[derive(Serialize)]
pub(crate) struct Measurement {
    pub(crate) shape: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    pub(crate) rss_kib: u64,
}

#[derive(Default)]
pub(crate) struct Report {
    rounds: Vec<Measurement>,
}

/// Medians over the rounds of one peer in one shape.
#[derive(Serialize)]
struct Row {
    shape: &'static str,
    peer: &'static str,
    cpu_us_per_request: f64,
    requests_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    rss_mib: f64,
    errors: u64,
    /// CPU per request divided by Envoy's in the same run.
    cpu_of_envoy: Option<f64>,
    rss_of_envoy: Option<f64>,
}

impl Report {
    pub(crate) fn add(&mut self, measurement: Measurement) {
        self.rounds.push(measurement);
    }

    fn rows(&self) -> Vec<Row> {
        let mut groups: BTreeMap<(&str, &str), Vec<&Measurement>> = BTreeMap::new();
        for round in &self.rounds {
            groups.entry((round.shape, round.peer)).or_default().push(round);
        }
        let mut rows: Vec<Row> = groups
            .into_values()
            .map(|rounds| {
                let median =
                    |figure: fn(&Measurement) -> f64| median(rounds.iter().map(|round| figure(round)).collect());
                Row {
                    shape: rounds[0].shape,
                    peer: rounds[0].peer,
                    cpu_us_per_request: median(|round| round.cpu_seconds * 1e6 / round.requests.max(1) as f64),
                    requests_per_second: median(|round| round.requests as f64 / round.seconds),
                    p50_us: median(|round| f64::from(round.p50_us)),
                    p99_us: median(|round| f64::from(round.p99_us)),
                    rss_mib: median(|round| round.rss_kib as f64 / 1024.0),
                    errors: rounds.iter().map(|round| round.errors).sum(),
                    cpu_of_envoy: None,
                    rss_of_envoy: None,
                }
            })
            .collect();
        let envoys: Vec<(&str, f64, f64)> = rows
            .iter()
            .filter(|row| row.peer == "envoy")
            .map(|row| (row.shape, row.cpu_us_per_request, row.rss_mib))
            .collect();
        for row in &mut rows {
            if let Some((_, cpu, rss)) = envoys.iter().find(|(shape, ..)| *shape == row.shape) {
                row.cpu_of_envoy = Some(row.cpu_us_per_request / cpu);
                row.rss_of_envoy = Some(row.rss_mib / rss);
            }
        }
        rows
    }

    fn markdown(&self) -> String {
        let mut text = String::from(
            "| shape | proxy | CPU µs/request | of Envoy's | requests/s | p50 µs | p99 µs | RSS MiB | of Envoy's | errors |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in self.rows() {
            let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            let _infallible = writeln!(
                text,
                "| {} | {} | {:.1} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {} | {} |",
                row.shape,
                row.peer,
                row.cpu_us_per_request,
                ratio(row.cpu_of_envoy),
                row.requests_per_second,
                row.p50_us,
                row.p99_us,
                row.rss_mib,
                ratio(row.rss_of_envoy),
                row.errors,
            );
        }
        text
    }

    pub(crate) fn print(&self) {
        println!("{}", self.markdown());
    }

    /// Writes `bench.json` (medians and all rounds), `bench.md` and `bench.svg`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let rows = self.rows();
        let all = serde_json::json!({"medians": rows, "rounds": self.rounds});
        fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(&all)?)?;
        fs::write(folder.join("bench.md"), self.markdown())?;
        fs::write(folder.join("bench.svg"), plot(&rows))?;
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Horizontal bars of CPU per request.
fn plot(rows: &[Row]) -> String {
    let (height, largest) = (26 * rows.len() + 50, rows.iter().map(|row| row.cpu_us_per_request).fold(1.0, f64::max));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-weight=\"bold\">CPU µs per request (less is better)</text>\n",
    );
    for (index, row) in rows.iter().enumerate() {
        let (y, width) = (40 + 26 * index, row.cpu_us_per_request / largest * 400.0);
        let colour = if row.peer == "mizzen" { "#0b7285" } else { "#adb5bd" };
        let _infallible = writeln!(
            svg,
            "<text x=\"12\" y=\"{}\">{} {}</text><rect x=\"170\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{:.1}</text>",
            y + 14,
            row.shape,
            row.peer,
            width + 178.0,
            y + 14,
            row.cpu_us_per_request,
        );
    }
    svg + "</svg>\n"
}
