//! Envoy's response flags: the short form in logs and metrics, the long form in `%RESPONSE_FLAGS_LONG%`.

/// The long name of one short flag; the short one when it is not known.
pub fn long(short: &str) -> &str {
    match short {
        "LH" => "FailedLocalHealthCheck",
        "UH" => "NoHealthyUpstream",
        "UT" => "UpstreamRequestTimeout",
        "LR" => "LocalReset",
        "UR" => "UpstreamRemoteReset",
        "UF" => "UpstreamConnectionFailure",
        "UC" => "UpstreamConnectionTermination",
        "UO" => "UpstreamOverflow",
        "NR" => "NoRouteFound",
        "DI" => "DelayInjected",
        "FI" => "FaultInjected",
        "RL" => "RateLimited",
        "UAEX" => "UnauthorizedExternalService",
        "RLSE" => "RateLimitServiceError",
        "DC" => "DownstreamConnectionTermination",
        "URX" => "UpstreamRetryLimitExceeded",
        "SI" => "StreamIdleTimeout",
        "IH" => "InvalidEnvoyRequestHeaders",
        "DPE" => "DownstreamProtocolError",
        "UMSDR" => "UpstreamMaxStreamDurationReached",
        "RFCF" => "ResponseFromCacheFilter",
        "NFCF" => "NoFilterConfigFound",
        "DT" => "DurationTimeout",
        "UPE" => "UpstreamProtocolError",
        "NC" => "NoClusterFound",
        "OM" => "OverloadManagerTerminated",
        "DF" => "DnsResolutionFailed",
        "DO" => "DropOverload",
        other => other,
    }
}
