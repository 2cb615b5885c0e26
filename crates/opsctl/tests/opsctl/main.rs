//! The program from outside: started as a process, judged by what it prints, leaves behind and ends with.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod backup;
mod db;
mod dev;
mod load_test;
mod logs;
mod program;
mod runbook;
mod smoke;
