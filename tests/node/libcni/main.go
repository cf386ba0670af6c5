// What a container runtime does with a network's plugins: the reference library, called as cnitool calls it.
//
//	libcni add|check|del|validate DIRECTORY NETWORK NETNS CONTAINER
//
// The plugins are in CNI_PATH, the results of earlier calls in CNI_CACHE. A pod's name may be in POD.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 5 {
		return fmt.Errorf("usage: libcni add|check|del|validate DIRECTORY NETWORK NETNS CONTAINER")
	}
	verb, directory, network, netns, container := arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]
	list, err := libcni.LoadConfList(directory, network)
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{os.Getenv("CNI_PATH")}, os.Getenv("CNI_CACHE"), nil)
	runtime := &libcni.RuntimeConf{ContainerID: container, NetNS: netns, IfName: "eth0"}
	if pod := os.Getenv("POD"); pod != "" {
		runtime.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", pod}}
	}
	ctx := context.Background()
	switch verb {
	case "add":
		result, err := cni.AddNetworkList(ctx, list, runtime)
		if err != nil {
			return err
		}
		return result.Print()
	case "check":
		return cni.CheckNetworkList(ctx, list, runtime)
	case "del":
		return cni.DelNetworkList(ctx, list, runtime)
	case "validate":
		_, err := cni.ValidateNetworkList(ctx, list)
		return err
	}
	return fmt.Errorf("%s is no verb", verb)
}
