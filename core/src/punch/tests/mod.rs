//! Punchers against each other through NATs, and against those who forge.

mod attack;
mod pairs;
mod world;
