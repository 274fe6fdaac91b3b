// Package landlock turns rights into a Landlock ruleset and says exactly what
// the ruleset does not express.
//
// Landlock only grants, and a grant on a directory reaches everything below
// it. Rights also forbid inside a permitted tree. [Build] therefore grants at
// the highest path that allows, and reports each path below that allows less
// as a [Mask], for the mount namespace to cover. Between the two nothing is
// left over: what rights forbid is neither granted nor unmasked, or it stands
// in the report by name (Missing, Widened).
//
// Nothing is best effort. Every bit that the kernel's ABI knows is handled, an
// ABI too old for the rights is an error, and write access to proc, sysfs and
// their like is never granted: real root without capabilities could still set
// core_pattern through a writable /proc.
package landlock
