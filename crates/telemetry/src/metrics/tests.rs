use super::*;

fn labels(destination: &str) -> Labels {
    Labels {
        reporter: Reporter::Destination,
        source: Arc::new(Party { workload: "productpage-v1".into(), ..Party::default() }),
        destination: Arc::new(Party { workload: destination.into(), ..Party::default() }),
        destination_service: "reviews.default.svc.cluster.local".into(),
        destination_service_name: "reviews".into(),
        destination_service_namespace: "default".into(),
        mutual_tls: Some(true),
    }
}

fn sample(status: u16) -> HttpSample<'static> {
    HttpSample {
        grpc: false,
        grpc_status: None,
        status,
        flags: "",
        duration: Duration::from_micros(1500),
        request_bytes: 3,
        response_bytes: 2000,
    }
}

#[test]
fn an_exchange_is_counted_under_istios_names_and_labels() {
    let metrics = IstioMetrics::default();
    assert_eq!(metrics.prometheus(), "", "no series before the first increment");
    let traffic = metrics.traffic(labels("reviews-v1"));
    assert_eq!(metrics.prometheus(), "", "a handle alone is no series");
    traffic.http(&sample(200));
    traffic.http(&sample(200));
    let text = metrics.prometheus();
    let expected = "istio_requests_total{reporter=\"destination\",source_workload=\"productpage-v1\",\
        source_canonical_service=\"unknown\",source_canonical_revision=\"unknown\",source_workload_namespace=\"unknown\",\
        source_principal=\"unknown\",source_app=\"unknown\",source_version=\"unknown\",source_cluster=\"unknown\",\
        destination_workload=\"reviews-v1\",destination_canonical_service=\"unknown\",\
        destination_canonical_revision=\"unknown\",destination_workload_namespace=\"unknown\",\
        destination_principal=\"unknown\",destination_app=\"unknown\",destination_version=\"unknown\",\
        destination_cluster=\"unknown\",destination_service=\"reviews.default.svc.cluster.local\",\
        destination_service_name=\"reviews\",destination_service_namespace=\"default\",request_protocol=\"http\",\
        response_code=\"200\",response_flags=\"-\",connection_security_policy=\"mutual_tls\",grpc_response_status=\"\"} 2\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("# TYPE istio_request_duration_milliseconds histogram\n"));
    let bucket =
        |line: &str| text.lines().any(|have| have.starts_with("istio_request_duration") && have.ends_with(line));
    assert!(bucket("le=\"1\"} 0") && bucket("le=\"5\"} 2") && bucket("le=\"+Inf\"} 2"));
    assert!(
        text.lines().any(|line| line.starts_with("istio_request_duration_milliseconds_sum") && line.ends_with(" 3"))
    );
    assert!(text.lines().any(|line| line.starts_with("istio_response_bytes_sum") && line.ends_with(" 4000")));
    assert!(!text.contains("istio_tcp"));
}

#[test]
fn what_differs_is_a_series_of_its_own_and_what_is_equal_is_not() {
    let metrics = IstioMetrics::default();
    let (one, same) = (metrics.traffic(labels("a")), metrics.traffic(labels("a")));
    one.http(&sample(200));
    same.http(&sample(200));
    one.http(&sample(503));
    one.http(&HttpSample { flags: "UF", ..sample(503) });
    one.http(&HttpSample { grpc: true, grpc_status: Some(14), ..sample(200) });
    one.tcp(&TcpSample { opened: 1, closed: 1, sent: 10, received: 5, flags: "" });
    assert_eq!(metrics.series(), 5);
    let text = metrics.prometheus();
    assert!(text.contains("request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",connection_security_policy=\"mutual_tls\",grpc_response_status=\"14\"} 1\n"));
    assert!(text.contains("response_code=\"503\",response_flags=\"UF\""));
    assert!(text.lines().any(|line| line.starts_with("istio_tcp_sent_bytes_total{") && line.ends_with(" 10")));
    assert!(text.lines().filter(|line| line.starts_with("istio_tcp")).all(|line| !line.contains("response_code")));
}

#[test]
fn beyond_the_limit_everything_is_overflow_and_room_is_used_again() {
    let metrics = IstioMetrics::new(2);
    let traffic: Vec<_> = (0..4).map(|index| metrics.traffic(labels(&format!("w{index}")))).collect();
    for traffic in &traffic {
        traffic.http(&sample(200));
        traffic.http(&sample(200));
    }
    assert_eq!(metrics.series(), 2);
    let text = metrics.prometheus();
    let overflow = text.lines().find(|line| line.starts_with("istio_requests_total") && line.contains("overflow"));
    assert!(overflow.is_some_and(|line| line.ends_with(" 4")), "{text}");
    assert!(text.contains("mizzen_metric_series_overflow_total 2\n"));

    // The first two fall silent, the others go on.
    for _ in 0..=IDLE_SWEEPS {
        traffic[2].http(&sample(200));
        metrics.sweep();
    }
    assert_eq!(metrics.series(), 0);
    traffic[2].http(&sample(200));
    traffic[0].http(&sample(200));
    assert_eq!(metrics.series(), 2);
    let text = metrics.prometheus();
    assert!(
        text.lines()
            .any(|line| line.contains("destination_workload=\"w0\"") && line.ends_with("grpc_response_status=\"\"} 1"))
    );
    assert!(text.contains("destination_workload=\"w2\""));
}

#[test]
fn a_hundred_thousand_hostile_values_stay_within_the_limit() {
    let metrics = IstioMetrics::new(100);
    for index in 0..100_000u32 {
        let mut labels = labels("x");
        labels.destination_service = format!("{index}.evil\n\"}} 1").into();
        metrics.traffic(labels).http(&sample(200));
    }
    assert_eq!(metrics.series(), 100);
    for line in metrics.prometheus().lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("istio_") || line.starts_with("mizzen_"), "{line}");
    }
}

#[test]
fn threads_lose_nothing() {
    let metrics = IstioMetrics::default();
    let traffic = metrics.traffic(labels("a"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for index in 0..1_000 {
                    traffic.http(&sample(200 + index % 3));
                }
            });
        }
    });
    let total: u64 = metrics
        .prometheus()
        .lines()
        .filter(|line| line.starts_with("istio_requests_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!((metrics.series(), total), (3, 4_000));
}

/// What recording costs; `cargo test --release -p mizzen-telemetry -- --ignored --nocapture cost`.
#[test]
#[ignore = "measures, and says nothing in a debug build"]
fn cost_of_an_exchange() {
    let metrics = IstioMetrics::default();
    let traffic = metrics.traffic(labels("a"));
    let count = 2_000_000u64;
    let start = std::time::Instant::now();
    for _ in 0..count {
        traffic.http(std::hint::black_box(&sample(200)));
    }
    println!("metrics of an exchange: {} ns", start.elapsed().as_nanos() / u128::from(count));
}
