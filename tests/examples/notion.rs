//! A Notion to try the product against by hand: serves the tests' double, and prints each page whenever one changes. Its first
//! argument is the address to listen on, `127.0.0.1:8020` unless said.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "an example that cannot go on says so, and prints what came"
)]

use std::time::Duration;

use tests::{NOTION_DATABASE_ID, NOTION_TOKEN, Notion};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:8020".to_owned());
    let listener = TcpListener::bind(&address).await.expect("a free address");
    let notion = Notion::on(listener);
    println!("export NOTION_API_URL={}", notion.url());
    println!("export NOTION_TOKEN={NOTION_TOKEN}");
    println!("export NOTION_DATABASE_ID={NOTION_DATABASE_ID}");
    let mut shown = 0;
    loop {
        let asked = notion.asked();
        for one in &asked[shown..] {
            println!("{} -> {}", one.what, one.status);
        }
        if asked.len() > shown {
            for page in notion.pages() {
                println!("  {}", page.properties);
            }
        }
        shown = asked.len();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
