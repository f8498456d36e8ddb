"""Weight arithmetic on safetensors directories: streaming, by tensor name, without torch."""

METHODS = {
    "linear": "simple:Linear",
    "task_arithmetic": "simple:TaskArithmetic",
    "slerp": "sphere:Slerp",
    "nuslerp": "geometry:NuSlerp",
    "multislerp": "geometry:MultiSlerp",
    "karcher": "geometry:Karcher",
    "model_stock": "geometry:ModelStock",
    "warp": "geometry:Warp",
    "ties": "magnitude:Ties",
    "dare_linear": "magnitude:DareLinear",
    "dare_ties": "magnitude:DareTies",
    "della_linear": "sparse:DellaLinear",
    "della": "sparse:Della",
    "breadcrumbs": "sparse:Breadcrumbs",
    "breadcrumbs_ties": "sparse:BreadcrumbsTies",
    "sce": "consensus:Sce",
    "ram": "agents:Ram",
    "ramplus_tl": "agents:RamPlus",
    "wise_ft": "interpolate:WiseFt",
    "nearswap": "interpolate:Nearswap",
    "passthrough": "interpolate:Passthrough",
}  # name as in mergekit, where it has the method -> module:class


def named(name: str):
    """A method by its name; ValueError with the known names."""
    from importlib import import_module

    if name not in METHODS:
        raise ValueError(f"no merge method {name!r} (there are: {', '.join(sorted(METHODS))})")
    module, cls = METHODS[name].split(":")
    return getattr(import_module(f"pt_tools.merge.{module}"), cls)()
