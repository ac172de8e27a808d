export function PointsView() { return <p class="note">not yet</p>; }
