//! What a scenario expects of a call, and how it is compared with what a runner saw.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// Who checks a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// The pure decision, without a socket.
    Memory,
    /// Our control plane and our proxies over sockets.
    Wire,
    /// Our control plane and a stock Envoy.
    Envoy,
}

impl FromStr for Runner {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "memory" => Ok(Self::Memory),
            "wire" => Ok(Self::Wire),
            "envoy" => Ok(Self::Envoy),
            other => Err(format!("{other:?} is no runner; there are memory, wire and envoy")),
        }
    }
}

/// One line of an `expect` block.
#[derive(Debug, Clone)]
pub struct Expect {
    pub line: usize,
    pub text: String,
    /// Runners named in brackets at the start of the line; empty means all that can see it.
    only: Vec<Runner>,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    /// `status 404`: of every answer.
    Status(u16),
    /// `some-status 503`: of at least one answer.
    SomeStatus(u16),
    /// `from reviews-v2`: all answers are from this workload; `from none`: no workload was asked.
    From(String),
    /// `share reviews-v1 75% reviews-v3 25%`
    Share(BTreeMap<String, f64>),
    /// `same-workload`: all answers are from one, whichever.
    Same,
    /// `cluster outbound|9080|v2|reviews.default.svc.cluster.local`
    Cluster(String),
    /// `route NAME`
    Route(String),
    /// `origin VirtualService/default/reviews spec.http[0]`: the object and field that decided.
    Origin(String, String),
    /// `body TEXT`: the answer contains it.
    Body(String),
    /// `header NAME: VALUE` / `header NAME ~ PART` of the answer.
    Header(HeaderWish),
    /// `seen path /x`, `seen host h`, `seen method M`: what the workload was asked.
    SeenPath(String),
    SeenHost(String),
    SeenMethod(String),
    /// `seen header NAME: VALUE`, `seen header NAME ~ PART`, `seen no-header NAME`
    SeenHeader(HeaderWish),
    /// `timeout 3s`, `timeout none`
    Timeout(Option<Duration>),
    /// `retries 2`
    Retries(u32),
    /// `per-try-timeout 1s`
    PerTryTimeout(Duration),
    /// `delay 7s`, `delay none`: injected before the request goes on.
    Delay(Option<Duration>),
    /// `mirror reviews-v3`: a copy goes to this workload.
    Mirror(String),
    /// `balance ROUND_ROBIN`
    Balance(String),
    /// `trailer NAME: VALUE`, `trailer NAME ~ PART`: after the body of the answer.
    Trailer(HeaderWish),
    /// `seen trailer NAME: VALUE`: after the body of what the workload was asked.
    SeenTrailer(HeaderWish),
    /// `certificate NAME`: the server shows one for this name.
    Certificate(String),
    /// `no-answer`: the connection ends without one.
    NoAnswer,
    /// `mtls yes`: between the proxies.
    Mtls(bool),
    /// `tries 3`: how often workloads were asked for one call.
    Tries(u32),
}

#[derive(Debug, Clone, PartialEq)]
enum HeaderWish {
    Is(HeaderName, String),
    Contains(HeaderName, String),
    Absent(HeaderName),
}

/// What a workload was asked.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub host: String,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
}

/// What a runner saw. `None` is what it cannot see.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub status: Option<u16>,
    /// Status of every answer, when there were several.
    pub statuses: Option<Vec<u16>>,
    /// Share of answers by workload, from 0 to 1.
    pub shares: Option<BTreeMap<String, f64>>,
    pub same_workload: Option<bool>,
    pub cluster: Option<String>,
    pub route: Option<String>,
    /// Objects and fields that decided, most important first.
    pub origins: Option<Vec<(String, String)>>,
    pub body: Option<String>,
    pub headers: Option<HeaderMap>,
    pub trailers: Option<HeaderMap>,
    /// DNS names of the server's certificate.
    pub certificate: Option<Vec<String>>,
    /// Whether there was an answer at all.
    pub answered: Option<bool>,
    pub seen: Option<Seen>,
    pub timeout: Option<Option<Duration>>,
    pub retries: Option<u32>,
    pub per_try_timeout: Option<Option<Duration>>,
    pub delay: Option<Option<Duration>>,
    pub took: Option<Duration>,
    /// How many delays the caller's proxy counted meanwhile.
    pub delays_counted: Option<u64>,
    pub mirrors: Option<Vec<String>>,
    pub balance: Option<String>,
    pub mtls: Option<bool>,
    pub tries: Option<u32>,
    /// How far shares may be off.
    pub tolerance: f64,
}

/// An expectation that does not hold.
#[derive(Debug, Clone)]
pub struct Wrong {
    pub line: usize,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected `{}`, found {}", self.line, self.expected, self.found)
    }
}

impl Expect {
    pub(crate) fn parse(line: usize, text: &str) -> Result<Self, String> {
        let (only, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((names, rest)) => (names.split_whitespace().map(str::parse).collect::<Result<_, _>>()?, rest.trim()),
            None => (Vec::new(), text),
        };
        Ok(Self { line, text: text.to_owned(), only, what: What::parse(rest)? })
    }

    /// Whether `runner` can check this line.
    pub fn is_for(&self, runner: Runner) -> bool {
        let can = match self.what {
            What::Cluster(_)
            | What::Route(_)
            | What::Origin(..)
            | What::Timeout(_)
            | What::Retries(_)
            | What::PerTryTimeout(_)
            | What::Balance(_) => runner == Runner::Memory,
            What::Tries(_) | What::SomeStatus(_) | What::Trailer(_) | What::SeenTrailer(_) | What::Certificate(_) => {
                runner != Runner::Memory
            }
            _ => true,
        };
        can && (self.only.is_empty() || self.only.contains(&runner))
    }

    /// Whether the caller's proxy is to be asked what delays it injected.
    pub(crate) fn is_about_delays(&self) -> Option<bool> {
        match self.what {
            What::Delay(wanted) => Some(wanted.is_some()),
            _ => None,
        }
    }

    /// Whether there is to be no answer.
    pub(crate) fn is_about_none(&self) -> bool {
        self.what == What::NoAnswer
    }

    /// Whether a copy of the request has to be waited for.
    pub(crate) fn is_about_copies(&self) -> bool {
        matches!(self.what, What::Mirror(_))
    }

    /// Compares with what was seen; what was not seen is not judged.
    pub fn check(&self, observed: &Observed) -> Result<(), Wrong> {
        match self.what.difference(observed) {
            None => Ok(()),
            Some(found) => Err(Wrong { line: self.line, expected: self.text.clone(), found }),
        }
    }
}

impl What {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
        let number = || rest.parse().map_err(|_| format!("{word} needs a number, not {rest:?}"));
        Ok(match word {
            "status" => Self::Status(rest.parse().map_err(|_| "status needs a number".to_owned())?),
            "some-status" => Self::SomeStatus(rest.parse().map_err(|_| "some-status needs a number".to_owned())?),
            "from" => Self::From(rest.to_owned()),
            "share" => Self::Share(shares(rest)?),
            "same-workload" => Self::Same,
            "cluster" => Self::Cluster(rest.to_owned()),
            "route" => Self::Route(rest.to_owned()),
            "origin" => {
                let (object, field) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Origin(object.to_owned(), field.trim().to_owned())
            }
            "body" => Self::Body(rest.to_owned()),
            "header" => Self::Header(HeaderWish::parse(rest)?),
            "trailer" => Self::Trailer(HeaderWish::parse(rest)?),
            "certificate" => Self::Certificate(rest.to_owned()),
            "no-answer" => Self::NoAnswer,
            "no-header" => Self::Header(HeaderWish::Absent(header_name(rest)?)),
            "seen" => match rest.split_once(' ').map(|(word, rest)| (word, rest.trim())) {
                Some(("path", path)) => Self::SeenPath(path.to_owned()),
                Some(("host", host)) => Self::SeenHost(host.to_owned()),
                Some(("method", method)) => Self::SeenMethod(method.to_owned()),
                Some(("header", wish)) => Self::SeenHeader(HeaderWish::parse(wish)?),
                Some(("trailer", wish)) => Self::SeenTrailer(HeaderWish::parse(wish)?),
                Some(("no-header", name)) => Self::SeenHeader(HeaderWish::Absent(header_name(name)?)),
                _ => return Err("seen needs path, host, method, header, no-header or trailer".to_owned()),
            },
            "timeout" if rest == "none" => Self::Timeout(None),
            "timeout" => Self::Timeout(Some(duration(rest)?)),
            "retries" => Self::Retries(number()?),
            "per-try-timeout" => Self::PerTryTimeout(duration(rest)?),
            "delay" if rest == "none" => Self::Delay(None),
            "delay" => Self::Delay(Some(duration(rest)?)),
            "mirror" => Self::Mirror(rest.to_owned()),
            "balance" => Self::Balance(rest.to_owned()),
            "mtls" => Self::Mtls(match rest {
                "yes" => true,
                "no" => false,
                _ => return Err("mtls is yes or no".to_owned()),
            }),
            "tries" => Self::Tries(number()?),
            other => return Err(format!("{other:?} is nothing that can be expected")),
        })
    }

    /// What was found instead; `None` when it holds or cannot be seen.
    fn difference(&self, observed: &Observed) -> Option<String> {
        fn differs<T: PartialEq + fmt::Debug>(wanted: &T, found: Option<&T>) -> Option<String> {
            found.filter(|found| *found != wanted).map(|found| format!("{found:?}"))
        }
        let seen = observed.seen.as_ref();
        match self {
            Self::Status(wanted) => differs(wanted, observed.status.as_ref()).map(|status| {
                let body = observed.body.as_deref().unwrap_or_default().trim();
                if body.is_empty() { status } else { format!("{status} with the body {body:?}") }
            }),
            Self::SomeStatus(wanted) => {
                let statuses = observed.statuses.as_ref()?;
                (!statuses.contains(wanted)).then(|| format!("{statuses:?}"))
            }
            Self::From(wanted) if wanted == "none" => {
                observed.shares.as_ref().filter(|shares| !shares.is_empty()).map(shown_shares)
            }
            Self::From(wanted) => observed
                .shares
                .as_ref()
                .filter(|shares| shares.get(wanted).copied().unwrap_or_default() < 1.0 - 1e-9)
                .map(shown_shares),
            Self::Share(wanted) => {
                let shares = observed.shares.as_ref()?;
                let off = |name: &String| {
                    let (wanted, found) = (wanted.get(name).copied(), shares.get(name).copied());
                    (wanted.unwrap_or_default() - found.unwrap_or_default()).abs() > observed.tolerance
                        || wanted.is_none_or(|wanted| wanted == 0.0) && found.is_some()
                };
                wanted.keys().chain(shares.keys()).any(off).then(|| shown_shares(shares))
            }
            Self::Same => differs(&true, observed.same_workload.as_ref()).map(|_| "several workloads".to_owned()),
            Self::Cluster(wanted) => differs(wanted, observed.cluster.as_ref()),
            Self::Route(wanted) => differs(wanted, observed.route.as_ref()),
            Self::Origin(object, field) => {
                let origins = observed.origins.as_ref()?;
                let named = |(found, at): &(String, String)| found == object && at.starts_with(field.as_str());
                (!origins.iter().any(named)).then(|| format!("{origins:?}"))
            }
            Self::Body(part) => {
                let body = observed.body.as_ref()?;
                (!body.contains(part.as_str())).then(|| format!("the body {body:?}"))
            }
            Self::Header(wish) => wish.difference(observed.headers.as_ref()?),
            Self::SeenPath(wanted) => differs(wanted, seen.map(|seen| &seen.path)),
            Self::SeenHost(wanted) => differs(wanted, seen.map(|seen| &seen.host)),
            Self::SeenMethod(wanted) => differs(wanted, seen.map(|seen| &seen.method)),
            Self::SeenHeader(wish) => wish.difference(&seen?.headers),
            Self::Trailer(wish) => wish.difference(observed.trailers.as_ref()?),
            Self::SeenTrailer(wish) => wish.difference(&seen?.trailers),
            Self::Certificate(name) => {
                let names = observed.certificate.as_ref()?;
                (!names.contains(name)).then(|| format!("a certificate for {names:?}"))
            }
            Self::NoAnswer => observed.answered.filter(|answered| *answered).map(|_| {
                observed.status.map_or_else(|| "an answer".to_owned(), |status| format!("an answer with {status}"))
            }),
            Self::Timeout(wanted) => differs(wanted, observed.timeout.as_ref()),
            Self::Retries(wanted) => differs(wanted, observed.retries.as_ref()),
            Self::PerTryTimeout(wanted) => differs(&Some(*wanted), observed.per_try_timeout.as_ref()),
            Self::Delay(wanted) => {
                differs(wanted, observed.delay.as_ref()).or_else(|| delay_on_the_wire(*wanted, observed))
            }
            Self::Mirror(wanted) => {
                let mirrors = observed.mirrors.as_ref()?;
                (!mirrors.contains(wanted)).then(|| format!("copies to {mirrors:?}"))
            }
            Self::Balance(wanted) => differs(wanted, observed.balance.as_ref()),
            Self::Mtls(wanted) => differs(wanted, observed.mtls.as_ref()),
            Self::Tries(wanted) => differs(wanted, observed.tries.as_ref()),
        }
    }
}

/// A proxy says whether it injected a delay. The clock alone cannot: a busy machine delays as well, and timers that count
/// from the time at which an event loop woke (Envoy's do) end a moment early. So it judges only the order of magnitude.
fn delay_on_the_wire(wanted: Option<Duration>, observed: &Observed) -> Option<String> {
    let counted = observed.delays_counted?;
    match wanted {
        None => (counted > 0).then(|| format!("{counted} injected delays")),
        Some(_) if counted == 0 => Some("no injected delay".to_owned()),
        Some(wanted) => {
            observed.took.filter(|took| *took < wanted / 2).map(|took| format!("a delay, but an answer after {took:?}"))
        }
    }
}

impl HeaderWish {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some((name, value)) = text.split_once(": ") {
            return Ok(Self::Is(header_name(name)?, value.trim().to_owned()));
        }
        let (name, part) = text.split_once(" ~ ").ok_or("a header is expected as NAME: VALUE or NAME ~ PART")?;
        Ok(Self::Contains(header_name(name)?, part.trim().to_owned()))
    }

    fn difference(&self, headers: &HeaderMap) -> Option<String> {
        let all = |name: &HeaderName| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        let (Self::Is(name, _) | Self::Contains(name, _) | Self::Absent(name)) = self;
        let value = all(name);
        let holds = match (self, &value) {
            (Self::Absent(_), value) => value.is_none(),
            (Self::Is(_, wanted), Some(value)) => value == wanted,
            (Self::Contains(_, part), Some(value)) => value.contains(part.as_str()),
            (_, None) => false,
        };
        (!holds).then(|| value.map_or_else(|| format!("no {name}"), |value| format!("{name}: {value}")))
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no header name"))
}

fn shares(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (pairs, rest) = words.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err("share needs pairs of WORKLOAD and PERCENT%".to_owned());
    }
    pairs
        .iter()
        .map(|[name, percent]| {
            let number: f64 = percent
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| format!("{percent:?} is no percentage"))?;
            Ok(((*name).to_owned(), number / 100.0))
        })
        .collect()
}

fn shown_shares(shares: &BTreeMap<String, f64>) -> String {
    if shares.is_empty() {
        return "no workload".to_owned();
    }
    shares.iter().map(|(name, share)| format!("{name} {:.1}%", share * 100.0)).collect::<Vec<_>>().join(" ")
}

/// `7s`, `0.5s`, `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 3s or 250ms");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

#[cfg(test)]
mod tests;
