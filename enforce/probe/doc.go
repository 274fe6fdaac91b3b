// Package probe finds out what this machine can enforce by trying it.
//
// Nothing is concluded from a list, a version or a configuration file: a
// kernel that names bpf among its security modules may refuse every program,
// and one that allows user namespaces may take their capabilities away. Each
// fact is an act: a namespace made and its mounts changed, a Landlock rule that
// must refuse an open, a notified system call that must be answered.
//
// [Limits] is the one list of what enforcement cannot do, with the tier that it
// concerns; the documentation and `exeq doctor` print it from here.
package probe
