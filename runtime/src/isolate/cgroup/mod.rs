//! Control groups: version 2 first, version 1 and hybrid hosts supported.
