//! Just enough of HTTP/1.1 to tell where a response ends and whether it is the one that was expected.

use anyhow::{Context as _, Result, bail};

/// Longest response head that is accepted, in bytes.
pub const HEAD_MAX: usize = 8 * 1024;

/// A response as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The head is not complete; read on.
    Head,
    /// The head is complete; the response is this long in all, in bytes.
    Length(usize),
}

/// Looks at the bytes that came so far, from the first byte of a response on.
///
/// # Errors
/// Anything but a `200` of known length on a connection that stays open: in this bench that is a failure.
pub fn progress(bytes: &[u8]) -> Result<Progress> {
    let Some(head_length) = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
    else {
        anyhow::ensure!(
            bytes.len() <= HEAD_MAX,
            "a response head over {HEAD_MAX} bytes"
        );
        return Ok(Progress::Head);
    };
    let head = bytes.get(..head_length).unwrap_or_default();
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let status = lines.next().unwrap_or_default();
    if !status.starts_with(b"HTTP/1.1 200") {
        bail!("answered with {:?}", String::from_utf8_lossy(status));
    }
    let mut length = None;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).context("a length that is not a number")?;
            length = Some(
                text.parse::<usize>()
                    .context("a length that is not a number")?,
            );
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            bail!("answered with connection: close");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("answered with transfer-encoding where the server sent a length");
        }
    }
    Ok(Progress::Length(
        head_length + length.context("answered without a length")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_head_and_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(progress(bytes).unwrap(), Progress::Length(bytes.len()));
        assert_eq!(progress(&bytes[..30]).unwrap(), Progress::Head);
        assert_eq!(
            progress(&bytes[..bytes.len() - 3]).unwrap(),
            Progress::Length(bytes.len())
        );
    }

    #[test]
    fn everything_that_was_not_expected_is_an_error() {
        for bytes in [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(progress(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(progress(&[b'x'; HEAD_MAX + 1]).is_err());
    }
}
