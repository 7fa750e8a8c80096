//! The gateway's own figures: `/metrics` of its admin interface.
//!
//! Owns: fetching and reading them. Does not own: what they mean.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

/// All figures at one moment.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks the admin interface at `admin`.
    pub(crate) async fn fetch(admin: SocketAddr) -> Result<Self, String> {
        let fetching = async {
            let mut stream = TcpStream::connect(admin).await?;
            // 1.0: the body comes in one piece and ends with the connection.
            let request = format!("GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(DEADLINE, fetching)
            .await
            .map_err(|_| format!("the metrics at {admin}: no answer within {} s", DEADLINE.as_secs()))?
            .map_err(|error| format!("the metrics at {admin}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status == "200" {
            Ok(Self(body.to_owned()))
        } else {
            Err(format!("the metrics at {admin}: status {status:?}"))
        }
    }

    /// A gauge, or a counter with its `_total`; the sum over all labels. 0 for a family that has counted nothing yet.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let rest = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
            rest.strip_prefix(' ')?.trim().parse::<u64>().ok()
        };
        self.0.lines().filter_map(value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_their_labels() {
        let metrics = Metrics(
            "# TYPE landfall_sessions gauge\nlandfall_sessions 7\nlandfall_sessions_limit 9\n\
             landfall_refused_total{cause=\"malformed\"} 2\nlandfall_refused_total{cause=\"limit-reached\"} 3\n"
                .into(),
        );
        assert_eq!(metrics.sum("landfall_sessions"), 7);
        assert_eq!(metrics.sum("landfall_refused_total"), 5);
        assert_eq!(metrics.sum("landfall_udp_dropped_total"), 0);
    }
}
