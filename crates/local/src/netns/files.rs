//! Files by which programs of a pod find names: what a cluster's pods have, made from this machine's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::instance::{CLUSTER_DOMAIN, Instance};

/// The socket of a service of this machine that would answer for names from its own memory.
pub const HIDDEN: [&str; 1] = ["/run/nscd"];

/// The machine's own files, as far as they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub resolv_conf: Option<String>,
    pub hosts: Option<String>,
    pub nsswitch: Option<String>,
}

impl Machine {
    pub fn read() -> Self {
        let file = |name: &str| std::fs::read_to_string(format!("/etc/{name}")).ok();
        Self { resolv_conf: file("resolv.conf"), hosts: file("hosts"), nsswitch: file("nsswitch.conf") }
    }

    /// Whom this machine asks for names.
    pub fn resolvers(&self) -> Vec<SocketAddr> {
        let text = self.resolv_conf.as_deref().unwrap_or_default();
        mizzen_capture::options::name_servers(text).into_iter().map(|server| (server, 53).into()).collect()
    }

    /// Names in `/etc` and what stands in the files of that pod. Only files that are there can be put in the place of.
    pub fn for_pod(&self, instance: &Instance, name_server: Ipv4Addr) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if self.resolv_conf.is_some() {
            files.push(("resolv.conf", resolv_conf(&instance.namespace, name_server)));
        }
        if self.hosts.is_some() {
            files.push(("hosts", hosts(&instance.pod, instance.mesh.into())));
        }
        if let Some(text) = &self.nsswitch {
            files.push(("nsswitch.conf", nsswitch(text)));
        }
        files
    }
}

/// As the kubelet writes it.
fn resolv_conf(namespace: &str, name_server: Ipv4Addr) -> String {
    format!(
        "# Written by mizzen.\nnameserver {name_server}\n\
         search {namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\noptions ndots:5\n"
    )
}

fn hosts(pod: &str, address: IpAddr) -> String {
    format!("# Written by mizzen.\n127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{pod}\n")
}

/// Host names come from `hosts` and from DNS, not from a service of the machine that knows another network.
fn nsswitch(text: &str) -> String {
    let mut out: String =
        text.lines().filter(|line| !line.trim_start().starts_with("hosts:")).map(|line| format!("{line}\n")).collect();
    out.push_str("hosts: files dns\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::instance;

    #[test]
    fn a_pod_finds_names_as_in_a_cluster() {
        let machine = Machine {
            resolv_conf: Some("nameserver 127.0.0.53\nnameserver 9.9.9.9\n".to_owned()),
            hosts: None,
            nsswitch: Some("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\nshadow: files\n".to_owned()),
        };
        assert_eq!(machine.resolvers(), ["127.0.0.53:53".parse().unwrap(), "9.9.9.9:53".parse().unwrap()]);
        let files = machine.for_pod(&instance(), Ipv4Addr::new(10, 244, 0, 1));
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["resolv.conf", "nsswitch.conf"], "a file that is not there cannot be replaced");
        assert!(
            files[0]
                .1
                .contains("nameserver 10.244.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\n")
        );
        assert_eq!(files[1].1, "passwd: files\nshadow: files\nhosts: files dns\n");
    }
}
