"""How many bytes autograd keeps of a forward pass: the measurement that memory plans are compared with."""


def kept_for_backward(model, forward) -> int:
    """Bytes of the distinct storages that autograd saves in `forward()`, weights and buffers aside."""
    import torch

    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor is held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in kept.values())
