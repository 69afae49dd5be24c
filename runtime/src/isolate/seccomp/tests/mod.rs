//! The compiler against four judges: a plain reading of the profile, libseccomp as runc drives it, seccompiler,
//! and the kernel. A new test goes to the judge it needs; what needs none is in `rules`.

mod interpret;
mod kernel;
mod libseccomp_oracle;
mod profiles;
mod reading;
mod rules;
mod runc;
mod seccompiler_oracle;
mod table;
