//! (page of the room)
