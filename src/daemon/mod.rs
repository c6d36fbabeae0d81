//! (page of the room)

pub mod lock;
pub mod offline;
