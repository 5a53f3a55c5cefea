//! Redis: `PING`, and `ROLE` where a role is asked for.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value,
};

use super::Redis;

/// Asks on a connection of its own.
pub(super) async fn check(
    address: SocketAddr,
    check: &Redis,
    timeout: Duration,
) -> Result<(), String> {
    let mut login = RedisConnectionInfo::default();
    if let Some(username) = &check.username {
        login = login.set_username(username);
    }
    if let Some(password) = &check.password {
        login = login.set_password(password);
    }
    let server = ConnectionAddr::Tcp(address.ip().to_string(), address.port());
    let info = server
        .into_connection_info()
        .map_err(told)?
        .set_redis_settings(login);
    let client = Client::open(info).map_err(told)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await;
    let mut connection = connection.map_err(told)?;
    let Some(wanted) = &check.role else {
        let answer: Value = redis::cmd("PING")
            .query_async(&mut connection)
            .await
            .map_err(told)?;
        return match answer {
            Value::SimpleString(pong) if pong == "PONG" => Ok(()),
            other => Err(format!("PING is answered {other:?}")),
        };
    };
    let answer: Value = redis::cmd("ROLE")
        .query_async(&mut connection)
        .await
        .map_err(told)?;
    let role = match &answer {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(role)) => String::from_utf8_lossy(role).into_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    if role == *wanted {
        Ok(())
    } else {
        Err(format!("its role is `{role}`, not `{wanted}`"))
    }
}

fn told(error: redis::RedisError) -> String {
    error.to_string()
}
