//! The program `dogsled`: see the library.

fn main() {}
