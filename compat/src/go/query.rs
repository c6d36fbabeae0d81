//! `url.Values`: order and escapes.
