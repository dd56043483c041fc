/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: nodes with edges, made by hand or by stream capture, and what is instantiated from them. */
#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "sim.h"

struct sim_graph;

struct sim_node {
    struct sim_object_head head;
    struct sim_graph *graph;
    CUgraphNodeType type;
    struct sim_op op; /* what a launch does; its event and memory are looked up then */
    union {
        CUDA_KERNEL_NODE_PARAMS kernel;
        CUDA_MEMCPY3D copy;
        CUDA_MEMSET_NODE_PARAMS set;
        CUDA_HOST_NODE_PARAMS host;
        CUDA_MEM_ALLOC_NODE_PARAMS alloc;
        CUdeviceptr free;
        CUevent event;
    } params;
    struct sim_node **deps;
    size_t dep_count;
    struct sim_graph *child;
    struct sim_condition *condition; /* of a conditional node, whose body is the child */
    bool loops;
    CUgraph body;              /* the body's handle, where the program reads it */
    struct sim_node *original; /* what it was cloned from */
    bool enabled;
    bool seen; /* while walking */
};

struct sim_graph {
    struct sim_object_head head;
    struct sim_node **nodes;
    size_t count;
    bool owned; /* by a child graph node or an instantiated graph */
};

struct sim_exec {
    struct sim_object_head head;
    struct sim_graph *graph; /* a clone of its own, in an order that respects the edges */
    cuuint64_t flags;
};

struct sim_graph *sim_graph_new(void);
void sim_graph_free(struct sim_graph *graph);
struct sim_graph *sim_graph_clone(const struct sim_graph *graph);
/* False: the edges make a circle. */
bool sim_graph_sort(struct sim_graph *graph);
/* A node of `type` behind `deps`; *out is set on success only. */
CUresult sim_node_new(struct sim_graph *graph, CUgraphNodeType type, struct sim_node *const *deps, size_t dep_count,
                      struct sim_node **out);
void sim_node_free(struct sim_node *node);
/* Fill a node in from the parameters of its type. INVALID_VALUE when they make no sense. */
CUresult sim_node_set(struct sim_node *node, const void *params);
CUresult sim_node_add_dep(struct sim_node *node, struct sim_node *dep);

/* References to user objects that go with a graph (user_object.c). Dropping the last one runs the program's code without the lock. */
CUresult sim_user_object_hold(struct sim_graph *graph, void *object, unsigned int count);
CUresult sim_user_objects_copy(const struct sim_graph *from, struct sim_graph *to);
void sim_user_objects_drop(const struct sim_graph *graph);

/* ---- memory of graphs (graph_mem.c) ---- */

/* Addresses for an allocation node; no HBM is taken before a launch. */
CUresult sim_graph_mem_reserve(struct sim_node *node);
/* One more, or one less, node knows the address. */
void sim_graph_mem_hold(uint64_t address);
void sim_graph_mem_unhold(uint64_t address);
/* Make room for everything that a launch of the graph needs at its peak, on every device that it has memory on. */
CUresult sim_graph_mem_prepare(const struct sim_graph *graph, bool auto_free);
/* An allocation or free node is reached. */
void sim_graph_mem_alloc(uint64_t address);

/* A conditional node's body, empty as yet; and how often a launch of the node runs it. */
CUresult sim_condition_set(struct sim_node *n, CUDA_CONDITIONAL_NODE_PARAMS *p);
unsigned int sim_condition_rounds(struct sim_node *n);

#endif
