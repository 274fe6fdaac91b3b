package policy

import (
	"embed"
	"io/fs"
)

//go:embed starter/starter.cedar starter/settings.json
var starterFiles embed.FS

// Starter is the set that first use installs: a coding agent may work in its
// workspace and little else, and without a network.
func Starter() *Source {
	src := &Source{Version: 1, Files: map[string]string{}}
	sub, err := fs.Sub(starterFiles, "starter")
	if err != nil {
		panic(err) // the files are part of the program
	}
	names, err := fs.Glob(sub, "*")
	if err != nil {
		panic(err)
	}
	for _, n := range names {
		b, err := fs.ReadFile(sub, n)
		if err != nil {
			panic(err)
		}
		src.Files[n] = string(b)
	}
	return src
}
