//! Prints what is found in the files that are named: `cargo run -p mizzen-config --example validate -- FILE…`.

fn main() {
    let mut findings = Vec::new();
    let mut objects = 0;
    for path in std::env::args().skip(1) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = mizzen_config::parse(&path, &text);
                objects += parsed.objects.len();
                findings.extend(parsed.findings);
            }
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
    print!("{}", mizzen_config::report::lines(&findings));
    println!("{objects} objects");
}
