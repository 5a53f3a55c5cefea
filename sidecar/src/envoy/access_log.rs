//! The access log, with the fields that evenkeel's own proxy writes, as far as Envoy knows them.

use std::path::Path;

use evenkeel_policy::contract::{CLIENT_IP_PROPERTY, POOL_PROPERTY};

use super::yaml::quoted;
use crate::config::{AccessLog, LogFormat, LogTarget};

pub(super) fn render(log: &AccessLog) -> anyhow::Result<String> {
    let mut out = "access_log:\n".to_owned();
    match &log.target {
        LogTarget::Stdout => out.push_str(
            "- name: envoy.access_loggers.stdout
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
",
        ),
        LogTarget::File(path) => out.push_str(&format!(
            "- name: envoy.access_loggers.file
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: {}
",
            quoted(&absolute(path)?)
        )),
    }
    out.push_str("    log_format:\n");
    match log.format {
        LogFormat::Json => out.push_str(&json()),
        LogFormat::Combined => out.push_str(&combined()),
    }
    Ok(out)
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    Ok(std::path::absolute(path)?.display().to_string())
}

fn json() -> String {
    let client_ip = published(CLIENT_IP_PROPERTY);
    let pool = published(POOL_PROPERTY);
    let fields = [
        ("time", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
        ("client_ip", &client_ip),
        ("peer", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
        ("method", "%REQ(:METHOD)%"),
        ("host", "%REQ(:AUTHORITY)%"),
        ("path", "%REQ(:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("status", "%RESPONSE_CODE%"),
        ("bytes", "%BYTES_SENT%"),
        ("duration_ms", "%DURATION%"),
        ("pool", &pool),
        ("upstream", "%UPSTREAM_HOST%"),
        ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
        ("details", "%RESPONSE_CODE_DETAILS%"),
        ("flags", "%RESPONSE_FLAGS%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
    ];
    let mut out = "      json_format:\n".to_owned();
    for (name, value) in fields {
        out.push_str(&format!("        {name}: {}\n", quoted(value)));
    }
    out
}

fn combined() -> String {
    let line = format!(
        "{client} - - [%START_TIME(%d/%b/%Y:%H:%M:%S +0000)%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %BYTES_SENT% \"%REQ(REFERER)%\" \"%REQ(USER-AGENT)%\"\n",
        client = published(CLIENT_IP_PROPERTY)
    );
    format!(
        "      text_format_source: {{ inline_string: {} }}\n",
        quoted(&line)
    )
}

/// Envoy keeps what a filter published under `wasm.` and its name.
fn published(property: &str) -> String {
    format!("%FILTER_STATE(wasm.{property}:PLAIN)%")
}
