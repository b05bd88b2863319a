package build

import (
	"cmp"
	"debug/buildinfo"
	"maps"
	"slices"
)

// goModule is a module that a program was linked with.
type goModule struct{ path, version string }

// goModules reads what the linker wrote into programs; one that says nothing
// adds nothing.
func goModules(programs []string) []goModule {
	found := map[goModule]bool{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			continue
		}
		found[goModule{"stdlib", info.GoVersion}] = true
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			found[goModule{d.Path, d.Version}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b goModule) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version))
	})
}
