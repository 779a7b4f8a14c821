//! `mizzen init`: catch traffic for the sidecar.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mizzen_capture::apply::has_ipv6;
use mizzen_capture::options::{self, Dns};
use mizzen_capture::probe::{Direction, Outcome, probe};
use mizzen_capture::{Backend, Interception, Options, Ports, Ranges, apply, clean, nft, plan};

/// Catch this pod's or machine's traffic: the kernel's rules that send connections to the sidecar.
///
/// The flags are those of Istio's istio-iptables. It needs root, and in a container the capabilities NET_ADMIN and
/// NET_RAW. Running it again replaces the rules. At the end it looks with real connections whether the rules do what
/// they shall.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen init                                   catch all TCP connections, in and out
  mizzen init --dry-run                         only print the rules, as nft reads them
  mizzen init -o 3306 -x 10.9.0.0/16            leave calls to a port and to a network alone
  mizzen init -i 10.96.0.0/12 -b 8080           catch only calls to the cluster's services, and port 8080
  mizzen init --clean                           take all of it away

Exit status: 0 the rules are in force, 1 they are not or do not work (the reason is on stderr), 2 wrong usage.")]
pub(crate) struct Init {
    /// Port of the sidecar that takes outbound connections
    #[arg(short = 'p', long, visible_alias = "proxy-port", default_value_t = 15001, value_name = "PORT")]
    envoy_port: u16,
    /// Port of the sidecar that takes inbound connections
    #[arg(short = 'z', long, default_value_t = 15006, value_name = "PORT")]
    inbound_capture_port: u16,
    /// Port of mesh tunnels, which is never caught
    #[arg(short = 'e', long, default_value_t = 15008, value_name = "PORT")]
    inbound_tunnel_port: u16,
    /// Users whose connections are the sidecar's own and never caught
    #[arg(short = 'u', long, default_value = "1337", value_name = "UID,...")]
    proxy_uid: String,
    /// Groups whose connections are the sidecar's own and never caught [default: the users]
    #[arg(short = 'g', long, value_name = "GID,...")]
    proxy_gid: Option<String>,
    /// How inbound connections reach the sidecar
    #[arg(short = 'm', long, value_enum, ignore_case = true, default_value = "REDIRECT", value_name = "MODE")]
    istio_inbound_interception_mode: Mode,
    /// Inbound ports to catch: * for all, nothing for none
    #[arg(short = 'b', long, default_value = "*", value_name = "PORT,...")]
    istio_inbound_ports: String,
    /// Inbound ports to leave alone, where all are caught
    #[arg(short = 'd', long, default_value = "15090,15021,15020", value_name = "PORT,...")]
    istio_local_exclude_ports: String,
    /// Destinations to catch: * for all, nothing for none
    #[arg(short = 'i', long, default_value = "*", value_name = "CIDR,...")]
    istio_service_cidr: String,
    /// Destinations to leave alone
    #[arg(short = 'x', long, default_value = "", value_name = "CIDR,...")]
    istio_service_exclude_cidr: String,
    /// Destination ports to catch, whatever the destination
    #[arg(short = 'q', long, default_value = "", value_name = "PORT,...")]
    istio_outbound_ports: String,
    /// Destination ports to leave alone
    #[arg(short = 'o', long, default_value = "", value_name = "PORT,...")]
    istio_local_outbound_ports_exclude: String,
    /// Interfaces of virtual machines, whose connections count as outbound
    #[arg(short = 'k', long, default_value = "", value_name = "NAME,...")]
    kube_virt_interfaces: String,
    /// Interfaces to leave alone
    #[arg(short = 'c', long, visible_alias = "exclude-interfaces", default_value = "", value_name = "NAME,...")]
    istio_exclude_interfaces: String,
    /// Mark for TPROXY
    #[arg(short = 't', long, default_value_t = 1337, value_name = "MARK")]
    istio_inbound_tproxy_mark: u32,
    /// Routing table for TPROXY
    #[arg(short = 'r', long, default_value_t = 133, value_name = "TABLE")]
    istio_inbound_tproxy_route_table: u32,
    /// Catch DNS queries to the servers of /etc/resolv.conf
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    redirect_dns: bool,
    /// Catch DNS queries to any server
    #[arg(long, requires = "redirect_dns")]
    capture_all_dns: bool,
    /// Drop packets that connection tracking does not understand
    #[arg(long)]
    drop_invalid: bool,
    /// Leave IPv6 alone
    #[arg(long)]
    ipv4_only: bool,
    /// What holds the rules
    #[arg(long, value_enum, default_value_t = Holder::Auto)]
    backend: Holder,
    /// Only print the rules, as nft reads them
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Take the rules away instead
    #[arg(long, visible_aliases = ["cleanup", "cleanup-only"])]
    clean: bool,
    /// Do not look with real connections at the end
    #[arg(long)]
    skip_validation: bool,
    /// Port that the look at the end connects to
    #[arg(long, default_value_t = 15002, value_name = "PORT")]
    iptables_probe_port: u16,
    /// How long a connection of the look at the end may take, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    probe_timeout: u64,
    /// Known to Istio's templates; rules are always replaced, and IPv6 is caught where there is IPv6
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    force_apply: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    dual_stack: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    run_validation: Option<Option<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    native_nftables: Option<Option<String>>,
    #[arg(long, visible_alias = "log-level", hide = true)]
    log_output_level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The application sees 127.0.0.6 as its client
    #[value(name = "REDIRECT")]
    Redirect,
    /// The application can be shown the client's own address
    #[value(name = "TPROXY")]
    Tproxy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Holder {
    /// nf_tables where the kernel has it, else iptables
    Auto,
    /// The kernel's nf_tables, without any program
    Nftables,
    /// The programs iptables-restore and ip6tables-restore
    Iptables,
}

impl Init {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let options = self.options()?;
        if self.clean {
            clean(&options)?;
            println!("no traffic is caught any more");
            return Ok(ExitCode::SUCCESS);
        }
        let rules = plan(&options);
        if self.dry_run {
            // Nobody to tell when the reader is gone.
            let _ = std::io::stdout().write_all(nft::script(&rules).as_bytes());
            return Ok(ExitCode::SUCCESS);
        }
        let backend = apply(&rules, self.backend.wanted())?;
        let by = match backend {
            Backend::Nftables => "nf_tables",
            Backend::Iptables => "iptables",
        };
        println!("{} rules are in force ({by})", rules.rules().count());
        if self.skip_validation {
            return Ok(ExitCode::SUCCESS);
        }
        Ok(self.look(&options))
    }

    fn look(&self, options: &Options) -> ExitCode {
        let mut code = ExitCode::SUCCESS;
        for finding in probe(options, self.iptables_probe_port, Duration::from_millis(self.probe_timeout)) {
            let what = match finding.direction {
                Direction::Outbound => "outbound",
                Direction::Inbound => "inbound",
            };
            let family = match finding.family {
                mizzen_capture::Family::V4 => "IPv4",
                mizzen_capture::Family::V6 => "IPv6",
            };
            match finding.result {
                Outcome::Caught => println!("{what} {family}: a real connection was caught"),
                Outcome::NotChecked(why) => println!("{what} {family}: not checked, {why}"),
                Outcome::Wrong(why) => {
                    eprintln!("error: {what} {family}: {why}");
                    code = ExitCode::FAILURE;
                }
            }
        }
        code
    }

    fn options(&self) -> anyhow::Result<Options> {
        let proxy_uids = options::ids(&self.proxy_uid).context("--proxy-uid")?;
        let proxy_gids = match &self.proxy_gid {
            Some(list) => options::ids(list).context("--proxy-gid")?,
            None => proxy_uids.clone(),
        };
        let ports = |list: &str, flag: &'static str| options::ports(list).context(flag);
        Ok(Options {
            proxy_port: self.envoy_port,
            inbound_port: self.inbound_capture_port,
            tunnel_port: self.inbound_tunnel_port,
            proxy_uids,
            proxy_gids,
            proxy_marks: Vec::new(),
            interception: match self.istio_inbound_interception_mode {
                Mode::Redirect => Interception::Redirect,
                Mode::Tproxy => Interception::Tproxy,
            },
            inbound_ports: Ports::from_str(&self.istio_inbound_ports).context("--istio-inbound-ports")?,
            exclude_inbound_ports: ports(&self.istio_local_exclude_ports, "--istio-local-exclude-ports")?,
            outbound_ranges: Ranges::from_str(&self.istio_service_cidr).context("--istio-service-cidr")?,
            exclude_outbound_ranges: options::ranges(&self.istio_service_exclude_cidr)
                .context("--istio-service-exclude-cidr")?,
            outbound_ports: ports(&self.istio_outbound_ports, "--istio-outbound-ports")?,
            exclude_outbound_ports: ports(
                &self.istio_local_outbound_ports_exclude,
                "--istio-local-outbound-ports-exclude",
            )?,
            virtual_interfaces: options::interfaces(&self.kube_virt_interfaces).context("--kube-virt-interfaces")?,
            exclude_interfaces: options::interfaces(&self.istio_exclude_interfaces)
                .context("--istio-exclude-interfaces")?,
            dns: self.dns()?,
            drop_invalid: self.drop_invalid,
            tproxy_mark: self.istio_inbound_tproxy_mark,
            tproxy_table: self.istio_inbound_tproxy_route_table,
            ipv6: !self.ipv4_only && has_ipv6(),
        })
    }

    fn dns(&self) -> anyhow::Result<Option<Dns>> {
        const PORT: u16 = 15053;
        if !self.redirect_dns {
            return Ok(None);
        }
        if self.capture_all_dns {
            return Ok(Some(Dns { port: PORT, servers: None }));
        }
        let text =
            std::fs::read_to_string("/etc/resolv.conf").context("--redirect-dns: cannot read /etc/resolv.conf")?;
        let servers: Vec<IpAddr> = options::name_servers(&text);
        Ok(Some(Dns { port: PORT, servers: Some(servers) }))
    }
}

impl Holder {
    fn wanted(self) -> Option<Backend> {
        match self {
            Self::Auto => None,
            Self::Nftables => Some(Backend::Nftables),
            Self::Iptables => Some(Backend::Iptables),
        }
    }
}
