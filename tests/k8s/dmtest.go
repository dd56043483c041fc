// SPDX-License-Identifier: Apache-2.0

// dmtest is the kubelet's device manager and PodResources server and nothing else: no container runtime, no cgroups, no node. It reads commands, one
// a line, and answers each with one line of JSON, {"error": "..."} where the kubelet would have refused the pod. scripts/kubernetes builds it within
// the tree of Debian's source package. The kubelet's directory is a constant there: whoever starts it mounts another one over /var/lib/kubelet.
//
//	start | stop | restart             the kubelet's end and its next start, which removes all sockets and reads what it wrote down before
//	capacity                           what it would write into the node's status
//	allocate POD CONTAINER RES=N...    admit a container, which joins the pod
//	options POD CONTAINER              start it: what the runtime is told to put into the container
//	devices POD                        the ids that the pod's containers have
//	forget POD                         the pod has ended
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
)

const podResources = "/var/lib/kubelet/pod-resources/kubelet.sock"

type answer map[string]interface{}

// node is what of a node the device manager asks for: its pods, and whether all sources of pods have been heard.
type node struct {
	mutex   sync.Mutex
	order   []string
	pods    map[string]*v1.Pod
	manager *devicemanager.ManagerImpl
	server  *grpc.Server
}

func (n *node) AddSource(string)               {}
func (n *node) AllReady() bool                 { return true }
func (n *node) GetCPUs(string, string) []int64 { return nil }
func (n *node) GetPods() []*v1.Pod {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	pods := []*v1.Pod{}
	for _, name := range n.order {
		pods = append(pods, n.pods[name].DeepCopy())
	}
	return pods
}

func (n *node) start() error {
	if n.manager != nil {
		return fmt.Errorf("started already")
	}
	manager, err := devicemanager.NewManagerImpl(nil, topologymanager.NewFakeManager())
	if err != nil {
		return err
	}
	if err = manager.Start(n.GetPods, n); err != nil {
		return err
	}
	n.manager = manager
	if err = os.MkdirAll(filepath.Dir(podResources), 0750); err != nil {
		return err
	}
	os.Remove(podResources)
	listener, err := net.Listen("unix", podResources)
	if err != nil {
		return err
	}
	n.server = grpc.NewServer()
	podresourcesapi.RegisterPodResourcesListerServer(n.server, podresources.NewV1PodResourcesServer(n, manager, n))
	go n.server.Serve(listener)
	return nil
}

func (n *node) stop() error {
	if n.manager == nil {
		return fmt.Errorf("not started")
	}
	n.server.Stop()
	err := n.manager.Stop()
	n.manager = nil
	return err
}

// admit adds the container to its pod, and takes it away again where the device manager refuses it.
func (n *node) admit(podName string, name string, requests []string) error {
	limits := v1.ResourceList{}
	for _, request := range requests {
		half := strings.SplitN(request, "=", 2)
		if len(half) != 2 {
			return fmt.Errorf("not RESOURCE=N: %s", request)
		}
		quantity, err := resource.ParseQuantity(half[1])
		if err != nil {
			return err
		}
		limits[v1.ResourceName(half[0])] = quantity
	}
	n.mutex.Lock()
	pod, known := n.pods[podName]
	if !known {
		pod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName, Namespace: "tests", UID: types.UID("uid-" + podName)}}
		n.pods[podName] = pod
		n.order = append(n.order, podName)
	}
	before := pod.Spec.Containers
	pod.Spec.Containers = append(before, v1.Container{Name: name, Resources: v1.ResourceRequirements{Limits: limits, Requests: limits}})
	copied := pod.DeepCopy()
	n.mutex.Unlock()
	err := n.manager.Allocate(copied, &copied.Spec.Containers[len(before)])
	if err != nil {
		n.mutex.Lock()
		pod.Spec.Containers = before
		n.mutex.Unlock()
		if !known {
			n.forget(podName)
		}
	}
	return err
}

func (n *node) forget(podName string) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	delete(n.pods, podName)
	for i, name := range n.order {
		if name == podName {
			n.order = append(n.order[:i], n.order[i+1:]...)
			break
		}
	}
}

func (n *node) options(podName string, name string) (answer, error) {
	for _, pod := range n.GetPods() {
		for i := range pod.Spec.Containers {
			if pod.Name == podName && pod.Spec.Containers[i].Name == name {
				options, err := n.manager.GetDeviceRunContainerOptions(pod, &pod.Spec.Containers[i])
				return answer{"options": options}, err
			}
		}
	}
	return nil, fmt.Errorf("no such container")
}

func counts(list v1.ResourceList) map[string]int64 {
	result := map[string]int64{}
	for name, quantity := range list {
		result[string(name)] = quantity.Value()
	}
	return result
}

func (n *node) do(words []string) (answer, error) {
	switch {
	case words[0] == "start":
		return answer{}, n.start()
	case words[0] == "restart" && n.manager != nil:
		if err := n.stop(); err != nil {
			return nil, err
		}
		return answer{}, n.start()
	case n.manager == nil:
		return nil, fmt.Errorf("not started")
	case words[0] == "stop":
		return answer{}, n.stop()
	case words[0] == "capacity":
		capacity, allocatable, deleted := n.manager.GetCapacity()
		return answer{"capacity": counts(capacity), "allocatable": counts(allocatable), "deleted": deleted}, nil
	case words[0] == "allocate" && len(words) > 3:
		return answer{}, n.admit(words[1], words[2], words[3:])
	case words[0] == "options" && len(words) == 3:
		return n.options(words[1], words[2])
	case words[0] == "devices" && len(words) == 2:
		listed, err := podresources.NewV1PodResourcesServer(n, n.manager, n).List(context.Background(), nil)
		result := answer{}
		if err == nil {
			for _, pod := range listed.PodResources {
				for _, container := range pod.Containers {
					ids := map[string][]string{}
					for _, devices := range container.Devices {
						ids[devices.ResourceName] = append(ids[devices.ResourceName], devices.DeviceIds...)
					}
					if pod.Name == words[1] {
						result[container.Name] = ids
					}
				}
			}
		}
		return answer{"containers": result}, err
	case words[0] == "forget" && len(words) == 2:
		n.forget(words[1])
		n.manager.UpdateAllocatedDevices()
		return answer{}, nil
	}
	return nil, fmt.Errorf("no such command")
}

func main() {
	n := &node{pods: map[string]*v1.Pod{}}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		if len(words) == 0 {
			continue
		}
		result, err := n.do(words)
		if err != nil {
			result = answer{"error": err.Error()}
		}
		if out.Encode(result) != nil {
			return
		}
	}
}
