"""Names from versions before 0.6, when the library was called ``scripts``, and their new names."""

from __future__ import annotations

# entries of metrics.json and run.json in results of those versions
RENAMED_METRICS = {"folded_share": "folding_fraction", "log_jacobian_spread": "sd_log_jacobian"}
RENAMED_RUN = {"start": "initial_transform"}

# classes and functions that a user's own config may name
RENAMED = {
    f"scripts.{old}": f"ncf.{new}"
    for old, new in {
        "network.NCF": "fit.network.NCF",
        "network.CCM": "fit.network.CCM",
        "network.SM": "fit.network.SM",
        "network.Sine": "fit.network.Sine",
        "losses.WeightedSum": "fit.terms.WeightedSum",
        "losses.ImageTerm": "fit.terms.ImageTerm",
        "losses.CorrelationTerm": "fit.terms.CorrelationTerm",
        "losses.FieldTerm": "fit.terms.FieldTerm",
        "losses.ControlTerm": "fit.terms.ControlTerm",
        "losses.OccupancyTerm": "fit.terms.OccupancyTerm",
        "losses.OccupancyLoss": "fit.losses.occupancy.OccupancyLoss",
        "losses.FoldingLoss": "fit.losses.folding.FoldingLoss",
        "local_losses.SSIMLoss": "fit.losses.ssim.SSIMLoss",
        "local_losses.LocalCorrelationLoss": "fit.losses.local_correlation.LocalCorrelationLoss",
        "sampling.Warp": "space.sampling.Warp",
        "alignment.InitialAlignment": "fit.initial_alignment.InitialAlignment",
        "engine.PairOptimizer": "fit.optimizer.PairOptimizer",
        "engine.prepare_pair": "pair.prepare.prepare_batch",
        "inputs.PairOrPhantom": "pair.source.PairOrPhantom",
        "inputs.CheckOutput": "pair.source.HoldOutput",
        "checks.CheckFilesd": "pair.checks.CheckFilesd",
        "checks.CheckPaird": "pair.checks.CheckPaird",
        "transforms.ReadPaird": "pair.read.ReadPaird",
        "transforms.DataWeightd": "pair.data_region.DataWeightd",
        "transforms.RobustScaled": "pair.scaling.RobustScaled",
        "results.WarpToFixedd": "evaluate.measured.WarpToFixedd",
        "results.Measured": "evaluate.measured.Measured",
        "results.SaveResultd": "result.write.SaveResultd",
        "report.Reports": "report.Reports",
        "guard.Summary": "result.closing.PrintClosing",
        "guard.DeviceCheck": "run.guard.DeviceCheck",
        "guard.Allocator": "core.process.Allocator",
        "guard.GuardedRun": "run.guard.GuardedRun",
        "guard.Released": "run.guard.Released",
        "datasets.share_of_rank": "io.pair_lists.share_of_rank",
        "fields.ReadFieldd": "evaluate.stored_fields.ReadFieldd",
        "evaluation.Evaluated": "evaluate.evaluation.Evaluated",
        "evaluation.EvaluationTable": "evaluate.evaluation.EvaluationTable",
        "imported.SaveImportedd": "use.import_fields.SaveImportedd",
        "imported.Imported": "use.import_fields.Imported",
    }.items()
}
