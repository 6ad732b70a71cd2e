package main

import (
	"fmt"
	"reflect"
	"strings"
)

// envPrefix begins the variables that override the file: guard.callTimeout is
// KERNELGATE_GUARD_CALLTIMEOUT.
const envPrefix = "KERNELGATE_"

// overrides are the configuration's paths by the variables that set them.
type overrides map[string]string

// overridesOf refuses variables that set nothing: a misspelt one must not be
// passed over in silence.
func overridesOf(environ []string) (overrides, error) {
	o := overrides{}
	o.add("", reflect.TypeFor[Config]())
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		short, ok := strings.CutPrefix(name, envPrefix)
		if ok && o[short] == "" {
			return nil, fmt.Errorf("the environment's variable %s overrides no key; unset it or correct its name", name)
		}
	}
	return o, nil
}

// add takes the leaves below a struct; maps and lists are the file's alone.
func (o overrides) add(prefix string, t reflect.Type) {
	for field := range t.Fields() {
		name := field.Tag.Get("yaml")
		switch kind := field.Type.Kind(); {
		case name == "" || kind == reflect.Map || kind == reflect.Slice:
		case kind == reflect.Struct:
			o.add(prefix+name+".", field.Type)
		default:
			o[strings.ToUpper(strings.ReplaceAll(prefix+name, ".", "_"))] = prefix + name
		}
	}
}

// of is koanf's question: which path a variable sets; "" for none.
func (o overrides) of(name, value string) (path string, v any) {
	return o[strings.TrimPrefix(name, envPrefix)], value
}
