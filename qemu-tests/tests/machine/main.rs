//! Whole machines, looked at from outside. One program, so that it is linked once and its tests run beside each other
//! whoever starts them.

mod adoption;
mod bothyctl;
mod broken_configuration;
mod clock;
mod console;
mod faults;
mod first_boot;
mod fork_bomb;
mod frozen;
mod function_ends;
mod hundred;
mod memory;
mod network;
mod no_network;
mod power_cut;
mod queue;
mod reach;
mod second_boot;
mod service_limit;
mod services;
mod shutdown;
mod storage;
mod tls;
mod watchdog;
