#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stack_fuzz::targets::bothy_toml::check(data));
