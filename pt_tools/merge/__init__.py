"""Weight arithmetic on safetensors directories: streaming, by tensor name, without torch."""

# name → module:class, imported when it is wanted
METHODS = {
    "linear": "pt_tools.merge.simple:Linear",
    "task_arithmetic": "pt_tools.merge.simple:TaskArithmetic",
    "slerp": "pt_tools.merge.sphere:Slerp",
    "nuslerp": "pt_tools.merge.geometry:NuSlerp",
    "multislerp": "pt_tools.merge.geometry:MultiSlerp",
    "karcher": "pt_tools.merge.geometry:Karcher",
    "model_stock": "pt_tools.merge.geometry:ModelStock",
    "warp": "pt_tools.merge.geometry:Warp",
    "wise_ft": "pt_tools.merge.interpolate:WiseFt",
    "nearswap": "pt_tools.merge.interpolate:Nearswap",
    "passthrough": "pt_tools.merge.interpolate:Passthrough",
    "ram": "pt_tools.merge.agents:Ram",
    "ramplus_tl": "pt_tools.merge.agents:RamPlus",
    "ties": "pt_tools.merge.magnitude:Ties",
    "dare_linear": "pt_tools.merge.magnitude:DareLinear",
    "dare_ties": "pt_tools.merge.magnitude:DareTies",
}
