//! All of Bookinfo in one process and without a mesh, to look at the page: `cargo run -p mizzen-bookinfo --example
//! bookinfo`. Reviews v1, v2 and v3 have a page each, on ports 9081 to 9083; 9084 shows what failures look like.

use mizzen_bookinfo::{Address, Config, Service, run};

fn at(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

fn config(service: Service, version: &str, port: u16) -> Config {
    let plain = Config::new(service, version);
    Config { host: "127.0.0.1".to_owned(), port, details: at(9091), ratings: at(9092), ..plain }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut services = vec![config(Service::Details, "v1", 9091), config(Service::Ratings, "v1", 9092)];
    for (number, version) in (1..).zip(["v1", "v2", "v3"]) {
        services.push(config(Service::Reviews, version, 9100 + number));
        services.push(Config { reviews: at(9100 + number), ..config(Service::Productpage, "v1", 9080 + number) });
        println!("http://127.0.0.1:{}/productpage with reviews {version}", 9080 + number);
    }
    services.push(Config { ratings: at(9), ..config(Service::Reviews, "v2", 9104) });
    services.push(Config { reviews: at(9104), details: at(9), ..config(Service::Productpage, "v1", 9084) });
    println!("http://127.0.0.1:9084/productpage with failures");
    let running: Vec<_> =
        services.into_iter().map(|config| tokio::spawn(run(config, std::future::pending()))).collect();
    for service in running {
        match service.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{error}"),
            Err(error) => eprintln!("{error}"),
        }
    }
}
