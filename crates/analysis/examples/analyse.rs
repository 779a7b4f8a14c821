//! Prints what is found across the files that are named: `cargo run -p mizzen-analysis --example analyse -- FILE…`.

fn main() {
    let (mut objects, mut findings) = (Vec::new(), Vec::new());
    for path in std::env::args().skip(1) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = mizzen_config::parse(&path, &text);
                objects.extend(parsed.objects);
                findings.extend(parsed.findings);
            }
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
    findings.extend(mizzen_analysis::analyse_objects(&objects));
    print!("{}", mizzen_config::report::lines(&findings));
}
