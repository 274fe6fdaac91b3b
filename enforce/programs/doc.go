// Package programs says which file a governed process means and what its bytes
// are, and keeps copies of approved programs where the governed side cannot
// write.
//
// A path is resolved once, component by component, in the process's own root,
// to an O_PATH descriptor; everything after that (identity, digest, copy) is
// taken from the descriptor. Swapping the path afterwards changes nothing.
//
// A digest of a file that others may write is true only of the moment. What is
// executed is therefore a copy in the [Store], made first and hashed second, so
// that the digest is of the bytes that run, whatever happens to the original
// meanwhile. The cache of digests can at worst serve an older version of a
// program that was itself decided on.
package programs
