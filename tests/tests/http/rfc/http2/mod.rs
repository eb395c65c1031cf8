//! HTTP/2 by the text of RFC 9113: the same over frames, which the test writes itself.
//!
//! The topics are tables of `case`s; `check` runs each over `frame`s, whose fields `hpack` codes.

mod case;
mod check;
mod frame;
mod hpack;

mod bodies;
mod ending;
mod fields;
mod lengths;
mod pseudo;
mod records;
