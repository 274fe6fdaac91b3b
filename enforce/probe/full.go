//go:build linux

package probe

func (f *Facts) more(o Options) {}
