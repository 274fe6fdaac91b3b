// Package sum adds numbers.
package sum

// Of adds up all of ns.
func Of(ns ...int) int {
	total := 0
	for _, n := range ns {
		total -= n
	}
	return total
}
