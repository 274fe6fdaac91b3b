package policy

import (
	"embed"
	"io/fs"
	"strings"
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

// HomeSecrets and HomeStartup are the names in a home directory that the
// starter set keeps from being read and written, and from being written. They
// are cut from its text, since parsing it takes longer than a start should.
func HomeSecrets() []string { return homeNames("no-home-secrets") }

// HomeStartup: see HomeSecrets.
func HomeStartup() []string { return homeNames("no-home-startup") }

func homeNames(id string) (out []string) {
	b, err := starterFiles.ReadFile("starter/starter.cedar")
	if err != nil {
		panic(err) // the file is part of the program
	}
	_, rule, _ := strings.Cut(string(b), "@id(\""+id+"\")")
	rule, _, _ = strings.Cut(rule, "};")
	for {
		var name string
		var ok bool
		if _, rule, ok = strings.Cut(rule, "Exeq::Home::\""); !ok {
			return out
		}
		name, rule, _ = strings.Cut(rule, "\"")
		out = append(out, name)
	}
}
