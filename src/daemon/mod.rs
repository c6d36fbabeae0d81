//! (page of the room)

pub mod offline;
