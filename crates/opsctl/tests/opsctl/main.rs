//! The program from outside: started as a process, judged by what it prints, leaves behind and ends with.

mod db;
mod dev;
mod program;
