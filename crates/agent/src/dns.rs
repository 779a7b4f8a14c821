//! The name server beside the proxy, to which the rules of capture send the application's queries (Istio: DNS capture).
//!
//! Names of the mesh are those that the control plane tells the proxy; all others are asked of the machine's own
//! resolvers, as the proxy's user, whose queries are never caught.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mizzen_dns::{Forwarder, Table, serve};
use mizzen_proto::istio_nds::NameTable;
use mizzen_proxy::Handle;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// What the name server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Each is served by datagrams and connections.
    pub addresses: Vec<SocketAddr>,
    /// The namespace whose Services are called by their own name alone.
    pub namespace: String,
}

/// What `resolv.conf` says of others: resolvers, and the domains that programs try a name in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    resolvers: Vec<SocketAddr>,
    search: Vec<String>,
}

impl Machine {
    pub(crate) fn read(resolv_conf: &str) -> Self {
        let resolvers = mizzen_capture::options::name_servers(resolv_conf);
        let search = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search ")).next_back();
        Self {
            resolvers: resolvers.into_iter().map(|address| (address, 53).into()).collect(),
            search: search.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect(),
        }
    }
}

/// Opens the addresses and follows the names that `proxy` is told, until the tasks are aborted.
pub(crate) async fn start(dns: &Dns, machine: Machine, proxy: &Handle) -> io::Result<Vec<JoinHandle<()>>> {
    let table = Arc::new(ArcSwap::from_pointee(Table::default()));
    let mut tasks = Vec::new();
    let mut failure = None;
    for address in &dns.addresses {
        let forwarder = Forwarder { servers: machine.resolvers.clone(), mark: None };
        match (UdpSocket::bind(address).await, TcpListener::bind(address).await) {
            (Ok(udp), Ok(tcp)) => tasks.push(tokio::spawn(serve(udp, Some(tcp), table.clone(), forwarder))),
            // One family may be missing on this machine.
            (Err(error), _) | (_, Err(error)) => failure = Some(error),
        }
    }
    if tasks.is_empty() {
        return Err(failure.unwrap_or_else(|| io::Error::other("no address")));
    }
    let (mut names, namespace) = (proxy.names(), dns.namespace.clone());
    tasks.push(tokio::spawn(async move {
        // Until the proxy is gone.
        while names.changed().await.is_ok() {
            let told = names.borrow_and_update().clone();
            table.store(Arc::new(of(&told, &namespace, &machine.search)));
            tracing::debug!(names = told.table.len(), "names of the mesh");
        }
    }));
    Ok(tasks)
}

/// All spellings of the names: a Service of Kubernetes also by its shorter ones, and others also with the domains behind
/// them that programs try first.
fn of(told: &NameTable, own_namespace: &str, search: &[String]) -> Table {
    let mut names: Vec<(String, Vec<IpAddr>)> = Vec::with_capacity(told.table.len() * 2);
    for (host, info) in &told.table {
        let addresses: Vec<IpAddr> = info.ips.iter().filter_map(|text| text.parse().ok()).collect();
        if addresses.is_empty() {
            continue;
        }
        let mut spellings = vec![host.clone()];
        if info.registry == "Kubernetes" && !info.shortname.is_empty() {
            let with_namespace = format!("{}.{}", info.shortname, info.namespace);
            spellings.push(format!("{with_namespace}.svc"));
            spellings.push(with_namespace);
            if info.namespace == own_namespace {
                spellings.push(info.shortname.clone());
            }
        } else {
            spellings.extend(search.iter().map(|domain| format!("{host}.{domain}")));
        }
        names.extend(spellings.into_iter().map(|name| (name, addresses.clone())));
    }
    Table::new(names, [])
}

#[cfg(test)]
mod tests {
    use mizzen_dns::Found;
    use mizzen_proto::istio_nds::name_table::NameInfo;

    use super::*;

    #[test]
    fn names_have_all_their_spellings() {
        let info = |ip: &str, registry: &str, name: &str, namespace: &str| NameInfo {
            ips: vec![ip.to_owned()],
            registry: registry.to_owned(),
            shortname: name.to_owned(),
            namespace: namespace.to_owned(),
            ..Default::default()
        };
        let told = NameTable {
            table: [
                ("web.shop.svc.cluster.local".to_owned(), info("10.96.0.1", "Kubernetes", "web", "shop")),
                ("web.other.svc.cluster.local".to_owned(), info("10.96.0.2", "Kubernetes", "web", "other")),
                ("db-0.db.shop.svc.cluster.local".to_owned(), info("10.0.1.1", "Kubernetes", "db-0.db", "shop")),
                ("api.example.com".to_owned(), info("240.240.0.1", "External", "", "")),
            ]
            .into(),
        };
        let table = of(&told, "shop", &["shop.svc.cluster.local".to_owned()]);
        let one = |address: [u8; 4]| vec![IpAddr::from(address)];
        for (name, address) in [
            ("web", [10, 96, 0, 1]),
            ("web.shop", [10, 96, 0, 1]),
            ("web.shop.svc", [10, 96, 0, 1]),
            ("web.shop.svc.cluster.local.", [10, 96, 0, 1]),
            ("web.other", [10, 96, 0, 2]),
            ("db-0.db", [10, 0, 1, 1]),
            ("db-0.db.shop", [10, 0, 1, 1]),
            ("db-0.db.shop.svc", [10, 0, 1, 1]),
            ("db-0.db.shop.svc.cluster.local", [10, 0, 1, 1]),
            ("api.example.com", [240, 240, 0, 1]),
            ("api.example.com.shop.svc.cluster.local", [240, 240, 0, 1]),
        ] {
            assert_eq!(table.find(name), Found::Addresses(&one(address)), "{name}");
        }
        for name in ["gone.shop.svc.cluster.local", "example.com", "web.shop.svc.cluster.local.shop.svc.cluster.local"]
        {
            assert_eq!(table.find(name), Found::Elsewhere, "{name}");
        }
    }

    #[test]
    fn the_machine_says_whom_to_ask() {
        let machine = Machine::read("search a.b c\nnameserver 10.96.0.10\nsearch x.y z\noptions ndots:5\n");
        assert_eq!(machine.resolvers, ["10.96.0.10:53".parse::<SocketAddr>().unwrap()]);
        assert_eq!(machine.search, ["x.y", "z"]);
        assert_eq!(Machine::read(""), Machine::default());
    }
}
