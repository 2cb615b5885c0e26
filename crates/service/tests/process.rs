//! What a program sets up once for its whole process, and may set up again without harm.

use std::time::Duration;

use service::telemetry::{self, LogFormat, LogSettings};

#[test]
fn logging_and_crypto_may_be_set_up_twice() {
    for _ in 0..2 {
        service::install_crypto();
        telemetry::init(&LogSettings {
            format: LogFormat::Json,
            level: "info".to_owned(),
        });
    }
    service::http_client::client(Duration::from_secs(1), "test").expect("a client");
}
